use super::vectors::run_plain;
use super::*;
use burn::tensor::{TensorData, bf16, f16};

/// Numbers around 0, tiny ones and zeros of both signs among them, that 16 bits hold.
fn numbers(n: usize, salt: usize, is_bf16: bool) -> Vec<f32> {
    let number = |i: usize| {
        let x = ((i * 7919 + salt) % 2003) as f32 / 1001.0 - 1.0;
        let x = match i % 11 {
            0 => -0.0,
            1 => x * 1e-5,
            _ => x,
        };
        if is_bf16 {
            bf16::from_f32(x).to_f32()
        } else {
            f16::from_f32(x).to_f32()
        }
    };
    (0..n).map(number).collect()
}

/// A matrix of these values, `[rows, columns]`, in 16 bits as they lie.
fn halves_of(values: &[f32], shape: [usize; 2], is_bf16: bool) -> FlexTensor {
    let (bytes, dtype) = if is_bf16 {
        let halves: Vec<bf16> = values.iter().map(|&x| bf16::from_f32(x)).collect();
        (Bytes::from_elems(halves), DType::BF16)
    } else {
        let halves: Vec<f16> = values.iter().map(|&x| f16::from_f32(x)).collect();
        (Bytes::from_elems(halves), DType::F16)
    };
    FlexTensor::new(bytes, Layout::contiguous(shape.into()), dtype)
}

#[test]
fn products_are_those_of_double_precision() {
    for is_bf16 in [false, true] {
        for d_in in [1, 3, 7, 64, 577] {
            for d_out in [1, 5, 48, 1000] {
                for n in [1, 2, 3, 8, 9, 33] {
                    check([n, d_in, d_out], is_bf16);
                }
            }
        }
    }
}

fn check([n, d_in, d_out]: [usize; 3], is_bf16: bool) {
    let x: Vec<f32> = numbers(n * d_in, 1, true).iter().map(|x| x / 3.0).collect();
    let bias: Vec<f32> = numbers(d_out, 2, true).iter().map(|x| x / 3.0).collect();
    // Output after output.
    let weight = numbers(d_in * d_out, 3, is_bf16);
    let turned: Vec<f32> = (0..d_in * d_out)
        .map(|at| weight[at % d_out * d_in + at / d_out])
        .collect();
    let by_columns = halves_of(&weight, [d_out, d_in], is_bf16).transpose(0, 1);
    let by_rows = halves_of(&turned, [d_in, d_out], is_bf16);
    let rows = tensor(x.clone(), [n, d_in]);
    let first = affine(rows.clone(), by_columns.clone(), None);
    let second = affine(rows.clone(), by_rows, None);
    assert!(slice(&first) == slice(&second));
    let third = affine(rows, by_columns, Some(tensor(bias.clone(), [d_out])));
    for (at, (plain, moved)) in slice(&first).iter().zip(slice(&third)).enumerate() {
        let (row, output) = (at / d_out, at % d_out);
        let (row, output) = (&x[row * d_in..][..d_in], output * d_in);
        let terms = row.iter().zip(&weight[output..]);
        let terms = terms.map(|(x, w)| f64::from(*x) * f64::from(*w));
        let (sum, size) = terms.fold((0.0, 0.0), |(sum, size), x| (sum + x, size + x.abs()));
        let off = (f64::from(*plain) - sum).abs();
        assert!(off <= 1e-5 * size, "{n} {d_in} {d_out}: {plain}, not {sum}");
        let bias = f64::from(bias[at % d_out]);
        let off = (f64::from(*moved) - sum - bias).abs();
        assert!(
            off <= 1e-5 * (size + bias.abs()),
            "{n} {d_in} {d_out}: {moved}"
        );
    }
}

#[test]
fn products_of_nothing_are_the_bias() {
    for [n, d_in, d_out] in [[0, 3, 2], [2, 0, 3], [2, 3, 0]] {
        let weight = halves_of(&vec![0.0; d_in * d_out], [d_in, d_out], true);
        let bias = tensor(vec![1.0; d_out], [d_out]);
        let rows = || tensor(vec![1.0; n * d_in], [n, d_in]);
        let out = affine(rows(), weight.clone(), Some(bias));
        assert_eq!(slice(&out), vec![1.0; n * d_out]);
        let out = affine(rows(), weight, None);
        assert_eq!(slice(&out), vec![0.0; n * d_out]);
    }
}

/// Values of each output, `[d_out, d_in]`, and the same rounded to 8 bits.
fn rounded(d_out: usize, d_in: usize) -> (Vec<f32>, EightBits) {
    let values = numbers(d_out * d_in, 3, true);
    let matrix = EightBits::round(&TensorData::new(values, [d_out, d_in]), false).unwrap();
    (matrix.widen().iter().collect(), matrix)
}

#[test]
fn products_with_8_bits_are_those_of_double_precision() {
    for d_in in [1, 3, 7, 64, 577] {
        for d_out in [1, 5, 48, 1000] {
            for n in [1, 2, 3, 8, 9, 33] {
                let (weight, matrix) = rounded(d_out, d_in);
                let x: Vec<f32> = numbers(n * d_in, 1, true).iter().map(|x| x / 3.0).collect();
                let bias = numbers(d_out, 2, true);
                let weights = packed(&matrix).transpose(0, 1);
                let bias_tensor = tensor(bias.clone(), [d_out]);
                let out = affine(tensor(x.clone(), [n, d_in]), weights, Some(bias_tensor));
                for (at, out) in slice(&out).iter().enumerate() {
                    let (row, output) = (at / d_out, at % d_out);
                    let terms = x[row * d_in..][..d_in].iter();
                    let terms = terms.zip(&weight[output * d_in..]);
                    let terms = terms.map(|(x, w)| f64::from(*x) * f64::from(*w));
                    let bias = f64::from(bias[output]);
                    let (sum, size) = terms.fold((bias, bias.abs()), |(sum, size), x| {
                        (sum + x, size + x.abs())
                    });
                    let off = (f64::from(*out) - sum).abs();
                    assert!(off <= 1e-5 * size, "{n} {d_in} {d_out}: {out}, not {sum}");
                }
            }
        }
    }
}

#[test]
fn products_with_8_bits_have_the_same_bits_everywhere() {
    let [d_in, d_out] = [577, 1000];
    let (_, matrix) = rounded(d_out, d_in);
    let weight = packed(&matrix);
    for n in [1, 7, 33] {
        let x = numbers(n * d_in, 1, true);
        let with_threads = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            let rows = tensor(x.clone(), [n, d_in]);
            let product = || affine(rows, weight.transpose(0, 1), None);
            slice(&pool.build().unwrap().install(product)).to_vec()
        };
        let alone = with_threads(1);
        assert!(with_threads(2) == alone && with_threads(3) == alone);
        if n <= FEW {
            let mut turned = vec![0.0; n * d_out];
            run_plain(Products {
                x: &x,
                weight: Weight::packed(&weight),
                out: &mut turned,
            });
            let plain = |at: usize| turned[at % d_out * n + at / d_out];
            assert!((0..n * d_out).all(|at| plain(at) == alone[at]));
        }
    }
}

#[test]
fn rows_of_8_bits_are_looked_up() {
    let (weight, matrix) = rounded(5, 19);
    let found = rows(&packed(&matrix), &[4, 0, 4]);
    let row = |row: usize| &weight[row * 19..][..19];
    assert_eq!(slice(&found), [row(4), row(0), row(4)].concat());
}

#[test]
#[should_panic(expected = "a weight of 8 bits")]
fn a_copy_of_8_bits_without_scales_is_refused() {
    let (_, matrix) = rounded(5, 3);
    let copy = packed(&matrix).transpose(0, 1).to_contiguous();
    affine(tensor(vec![1.0; 3], [1, 3]), copy, None);
}

#[test]
fn every_half_is_widened_exactly_on_every_machine() {
    fn with<K: Kind<Raw = Half>>(all: &[Half], plain: bool) -> Vec<f32> {
        let mut wide = vec![0.0; all.len()];
        let work = Widen {
            weight: Weight::<K> {
                values: all,
                scales: None,
                d_in: all.len(),
            },
            wide: &mut wide,
        };
        if plain {
            run_plain(work);
        } else {
            run(work);
        }
        wide
    }
    let all: Vec<Half> = (0..=u16::MAX).map(u16::to_ne_bytes).collect();
    let widened = |is_bf16: bool, plain: bool| {
        if is_bf16 {
            with::<Bf16>(&all, plain)
        } else {
            with::<F16>(&all, plain)
        }
    };
    for plain in [false, true] {
        let both = widened(false, plain).into_iter().zip(widened(true, plain));
        for (half, (of_f16, of_bf16)) in (0..=u16::MAX).zip(both) {
            let expected = [
                f16::from_bits(half).to_f32(),
                bf16::from_bits(half).to_f32(),
            ];
            for (ours, theirs) in [of_f16, of_bf16].into_iter().zip(expected) {
                let same = ours.to_bits() == theirs.to_bits();
                assert!(same || ours.is_nan() && theirs.is_nan(), "{half:#x}");
            }
        }
    }
}

#[test]
fn every_machine_and_every_number_of_threads_gives_the_same_bits() {
    let [d_in, d_out] = [577, 1000];
    for is_bf16 in [false, true] {
        let weight = numbers(d_in * d_out, 3, is_bf16);
        let weight = halves_of(&weight, [d_out, d_in], is_bf16);
        for n in [1, 7, 33] {
            let x = numbers(n * d_in, 1, true);
            let with_threads = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
                let rows = tensor(x.clone(), [n, d_in]);
                let product = || affine(rows, weight.transpose(0, 1), None);
                slice(&pool.build().unwrap().install(product)).to_vec()
            };
            let alone = with_threads(1);
            assert!(with_threads(2) == alone && with_threads(3) == alone);
            if n > FEW {
                continue;
            }
            let mut turned = vec![0.0; n * d_out];
            let (x, out) = (&x[..], &mut turned[..]);
            if is_bf16 {
                let weight = Weight::<Bf16>::halves(&weight, d_in);
                run_plain(Products { x, weight, out });
            } else {
                let weight = Weight::<F16>::halves(&weight, d_in);
                run_plain(Products { x, weight, out });
            }
            let plain = |at: usize| turned[at % d_out * n + at / d_out];
            assert!((0..n * d_out).all(|at| plain(at) == alone[at]));
        }
    }
}

#[test]
fn what_16_bits_do_not_hold_stays_as_it_is() {
    let narrow = |values: &[f32]| {
        let shape = [1, values.len()];
        let narrow = narrowed(tensor(values.to_vec(), shape), false)?;
        Some((narrow.dtype(), narrow))
    };
    let back = |values: &[f32], dtype: DType| {
        let (found, narrow) = narrow(values).unwrap();
        assert_eq!(found, dtype);
        let mut wide = vec![0.0; values.len()];
        if dtype == DType::BF16 {
            Weight::<Bf16>::halves(&narrow, values.len()).widen(&mut wide);
        } else {
            Weight::<F16>::halves(&narrow, values.len()).widen(&mut wide);
        }
        let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&wide), bits(values));
    };
    // The least f16, the largest, one more digit than bf16 has.
    let least = 2f32.powi(-24);
    back(
        &[0.0, -0.0, -least, 65504.0, 1.0 + 2f32.powi(-10)],
        DType::F16,
    );
    back(
        &[1e38 * 0.0, -0.0, 2f32.powi(-130), 2f32.powi(100)],
        DType::BF16,
    );
    back(&vec![0.5; 70_001], DType::BF16);
    for lost in [1.0 + 2f32.powi(-11), 0.1, 65537.0, least * 1.001] {
        assert!(narrow(&[lost]).is_none(), "{lost}");
        let mut many = vec![1.0; 70_001];
        many[70_000] = lost;
        assert!(narrow(&many).is_none(), "{lost}");
    }
    // Each in one of the two kinds.
    assert!(narrow(&[2f32.powi(100), 1.0 + 2f32.powi(-10)]).is_none());
}

#[test]
fn a_matrix_may_lie_column_after_column() {
    let matrix = tensor(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [2, 3]);
    let narrow = narrowed(matrix, true).unwrap();
    let shape: [usize; 2] = narrow.shape().dims();
    assert_eq!((shape, narrow.layout().strides()), ([2, 3], &[1, 2][..]));
    let out = affine(tensor(vec![1.0, 10.0], [1, 2]), narrow, None);
    assert_eq!(slice(&out), [41.0, 52.0, 63.0]);
}
