//! Other families, decoders, adapters and starts from a bundle, through the real binary.

use std::fs;

use crate::support::{Bench, Run};
use serde_json::Value;

/// Few steps on tiny models; sizes come with the family.
const SETTINGS: [&str; 10] = [
    "data.source=[\"texts.txt\"]",
    "data.valid=0.2",
    "tokenizer.vocab_size=300",
    "tokenizer.max_length=16",
    "training.steps=20",
    "training.batch_size=8",
    "training.log_every=2",
    "training.validate_every=5",
    "schedule.kind=constant",
    "schedule.warmup=0.0",
];

/// Families that fill masks, with their sizes.
const ENCODERS: [&[&str]; 4] = [
    &[
        "model.family=bert",
        "model.hidden_size=16",
        "model.num_hidden_layers=2",
        "model.intermediate_size=32",
        "model.max_position_embeddings=16",
    ],
    &[
        "model.family=roberta",
        "model.hidden_size=16",
        "model.num_hidden_layers=2",
        "model.intermediate_size=32",
        "model.max_position_embeddings=18",
    ],
    &[
        "model.family=distilbert",
        "model.dim=16",
        "model.n_layers=2",
        "model.hidden_dim=32",
        "model.max_position_embeddings=16",
    ],
    &[
        "model.family=electra",
        "model.embedding_size=8",
        "model.hidden_size=16",
        "model.num_hidden_layers=2",
        "model.intermediate_size=32",
        "model.max_position_embeddings=16",
    ],
];

const GPT2: &[&str] = &[
    "model.n_embd=16",
    "model.n_layer=2",
    "model.n_head=2",
    "model.n_inner=32",
    "model.n_positions=16",
];

/// Further decoders.
const DECODERS: [&[&str]; 4] = [
    &[
        "model.family=llama",
        "model.hidden_size=16",
        "model.num_hidden_layers=2",
        "model.num_attention_heads=4",
        "model.num_key_value_heads=2",
        "model.intermediate_size=32",
        "model.max_position_embeddings=16",
    ],
    &[
        "model.family=qwen2",
        "model.hidden_size=16",
        "model.num_hidden_layers=2",
        "model.num_attention_heads=4",
        "model.num_key_value_heads=2",
        "model.intermediate_size=32",
        "model.max_position_embeddings=16",
    ],
    &[
        "model.family=hearth_lstm",
        "model.embedding_size=16",
        "model.hidden_size=16",
        "model.num_hidden_layers=2",
    ],
    &[
        "model.family=hearth_gru",
        "model.embedding_size=16",
        "model.hidden_size=16",
        "model.num_hidden_layers=2",
    ],
];

const BART: &[&str] = &[
    "model.family=bart",
    "model.d_model=16",
    "model.encoder_layers=1",
    "model.decoder_layers=1",
    "model.encoder_ffn_dim=32",
    "model.decoder_ffn_dim=32",
    "model.max_position_embeddings=16",
];

const T5: &[&str] = &[
    "model.family=t5",
    "model.d_model=16",
    "model.d_kv=4",
    "model.d_ff=32",
    "model.num_layers=1",
    "model.num_decoder_layers=1",
    "noise.kind=spans",
    "noise.rate=0.3",
    "noise.permute_sentences=false",
];

fn bench(sizes: &[&str]) -> Bench {
    let bench = Bench::new(env!("CARGO_BIN_EXE_pretrain"), &[sizes, &SETTINGS].concat());
    let kinds = ["bird", "tool", "plant", "river", "metal"];
    let text = |n: usize| format!("{n} a {} of the {}\n", kinds[n % 5], kinds[n / 5 % 5]);
    bench.write("texts.txt", (0..300).map(text).collect::<String>());
    bench
}

fn sets<'a>(settings: &[&'a str]) -> Vec<&'a str> {
    settings
        .iter()
        .flat_map(|setting| ["--set", setting])
        .collect()
}

/// A run that is killed after so many lines of its log, and resumed, is the run that was not.
fn assert_resumable(bench: &Bench, whole: &Run, args: &[&str], lines: &[usize]) {
    for lines in lines {
        let out = format!("killed-{lines}");
        let mut child = bench.start(&out, *lines, args);
        child.kill().unwrap();
        child.wait().unwrap();
        bench.resume(&out).assert_equals(whole);
    }
}

// Families.

#[test]
fn every_encoder_learns_to_fill_masks() {
    for sizes in ENCODERS {
        let bench = bench(sizes);
        let run = bench.train("run", &["--steps", "100", "--set", "optimizer.lr=0.01"]);
        let losses = run.metric("valid", "loss");
        // Three hundred lines are soon learnt by heart: the best validation counts.
        let best = losses.iter().copied().fold(f64::MAX, f64::min);
        assert!(best < 0.9 * losses[0], "{sizes:?}: {losses:?}");
        let family = sizes[0].strip_prefix("model.family=").unwrap();
        assert_eq!(run.config()["model_type"], family);
        let class = run.config()["architectures"][0]
            .as_str()
            .unwrap()
            .to_lowercase();
        assert_eq!(class, format!("{family}formaskedlm"));
    }
}

#[test]
fn a_decoder_learns_to_continue_texts() {
    let bench = bench(GPT2);
    let args = ["clm", "--steps", "100", "--set", "optimizer.lr=0.01"];
    let run = bench.train("run", &args);
    let losses = run.metric("valid", "loss");
    assert!(losses[losses.len() - 1] < 0.8 * losses[0], "{losses:?}");
    assert_eq!(run.config()["architectures"][0], "GPT2LMHeadModel");
    // Without them Python's `transformers` waits for the end token of the published model.
    let tokenizer = fs::read_to_string(run.path().join("model/tokenizer.json")).unwrap();
    let tokenizer: Value = serde_json::from_str(&tokenizer).unwrap();
    let end = &tokenizer["model"]["vocab"]["<|endoftext|>"];
    assert!(end.is_u64());
    assert_eq!(&run.config()["bos_token_id"], end);
    assert_eq!(&run.config()["eos_token_id"], end);
    let metrics = &run.summary()["final"]["metrics"];
    let [loss, perplexity, bits] =
        ["loss", "perplexity", "bits_per_byte"].map(|name| metrics[name].as_f64().unwrap());
    assert!((perplexity.ln() - loss).abs() < 1e-9);
    // A token is a byte at least, and some are more.
    let bits_per_token = loss / std::f64::consts::LN_2;
    assert!(
        bits < bits_per_token && bits > bits_per_token / 16.0,
        "{bits} {bits_per_token}"
    );
}

#[test]
fn every_decoder_learns_to_continue_texts() {
    for (sizes, class) in DECODERS.into_iter().zip([
        "LlamaForCausalLM",
        "Qwen2ForCausalLM",
        "HearthLstmForCausalLM",
        "HearthGruForCausalLM",
    ]) {
        let bench = bench(sizes);
        let args = ["clm", "--steps", "100", "--set", "optimizer.lr=0.01"];
        let run = bench.train("run", &args);
        let losses = run.metric("valid", "loss");
        let best = losses.iter().copied().fold(f64::MAX, f64::min);
        assert!(best < 0.8 * losses[0], "{class}: {losses:?}");
        assert_eq!(run.config()["architectures"][0], class);
        assert_eq!(run.config()["tie_word_embeddings"], true);
        if !class.starts_with("Hearth") {
            let rope = serde_json::json!({"rope_type": "default", "rope_theta": 1e4});
            assert_eq!(run.config()["rope_parameters"], rope);
        }
        assert!(run.config()["eos_token_id"].is_u64());
    }
}

#[test]
fn every_noise_is_undone_by_an_encoder_decoder() {
    let word_pieces = [T5, &["tokenizer.kind=wordpiece"]].concat();
    for (sizes, class, sentinels) in [
        (BART, "BartForConditionalGeneration", false),
        (T5, "T5ForConditionalGeneration", true),
        (&word_pieces, "T5ForConditionalGeneration", true),
    ] {
        let bench = bench(sizes);
        let args = ["denoising", "--steps", "150", "--set", "optimizer.lr=0.01"];
        let whole = bench.train("whole", &args);
        let losses = whole.metric("valid", "loss");
        let best = losses.iter().copied().fold(f64::MAX, f64::min);
        assert!(best < 0.8 * losses[0], "{class}: {losses:?}");
        assert_eq!(whole.config()["architectures"][0], class);
        let tokenizer = fs::read_to_string(whole.path().join("model/tokenizer.json")).unwrap();
        assert_eq!(tokenizer.contains("<extra_id_99>"), sentinels);
        assert_resumable(&bench, &whole, &args, &[5]);
        // The tokenizer's own tokens hide spans where training goes on.
        let args = ["denoising", "--from", "whole", "--set", "optimizer.lr=0.0"];
        let again = bench.train("again", &args);
        assert!(again.weights() == whole.weights(), "{class}");
    }
}

#[test]
fn noise_that_cannot_be_made_is_refused() {
    let plain = bench(BART);
    let refuses = |settings: &[&str], words: &[&str]| {
        plain.refuses(&[&["denoising"], &sets(settings)[..]].concat(), words);
    };
    refuses(&["noise.rate=1.0"], &["noise.rate is 1"]);
    refuses(&["noise.mean_span=0.0"], &["noise.mean_span is 0"]);
    refuses(&["noise.kind=spans"], &["noise.permute_sentences is true"]);
    refuses(&["noise.kind=words"], &["unknown variant `words`"]);
    refuses(&["training.packing=true"], &["training.packing"]);
    refuses(
        &["tokenizer.max_length=20"],
        &["tokenizer.max_length is 20, longer than the model's 16 positions"],
    );
    bench(&[]).refuses(
        &["denoising", "--set", "model.family=bert"],
        &["model.family is \"bert\", which is no family for this; these are: bart"],
    );
    plain.refuses(
        &["denoising", "--from", "wordnet-bert-nano"],
        &["wordnet-bert-nano"],
    );
    plain.train("masks", &["denoising", "--steps", "1"]);
    plain.refuses(
        &[
            "denoising",
            "--from",
            "masks",
            "--set",
            "noise.kind=spans",
            "--set",
            "noise.permute_sentences=false",
        ],
        &["noise.kind is \"spans\", and the tokenizer has no <extra_id_0>"],
    );
}

#[test]
fn a_killed_decoder_goes_on_to_the_same_end() {
    let bench = bench(GPT2);
    for (kind, more) in [
        ("packed", &["training.packing=true"][..]),
        ("rows", &["training.packing=false", "training.pool=4"]),
    ] {
        let own = [
            "training.ema=0.9",
            "training.checkpoint_every=7",
            "model.dropout=0.1",
        ];
        let args = [
            &["clm", "--steps", "200"],
            &sets(&[&own, more].concat())[..],
        ]
        .concat();
        let whole = bench.train(&format!("whole-{kind}"), &args);
        for lines in [3, 30] {
            let out = format!("{kind}-{lines}");
            let mut child = bench.start(&out, lines, &args);
            child.kill().unwrap();
            child.wait().unwrap();
            bench.resume(&out).assert_equals(&whole);
        }
    }
}

#[test]
fn an_objective_refuses_families_that_see_too_little_or_too_much() {
    let plain = bench(&[]);
    plain.refuses(
        &["--set", "model.family=gpt2"],
        &["model.family is \"gpt2\"", "pretrain clm is for it"],
    );
    plain.refuses(
        &["clm", "--set", "model.family=bert"],
        &["model.family is \"bert\"", "pretrain mlm is for it"],
    );
    plain.refuses(
        &["clm", "--from", "wordnet-bert-nano"],
        &[
            "wordnet-bert-nano: holds a model of type \"bert\"",
            "pretrain mlm is for it",
        ],
    );
    plain.refuses(
        &["--set", "model.family=xlnet"],
        &["model.family is \"xlnet\"", "known are bert, roberta"],
    );
    plain.refuses(
        &["--set", "model.family=roberta", "--set", "model.n_embd=4"],
        &["no recipe key \"model.n_embd\""],
    );
    // A position less than the model has rows for, behind the padding's.
    let sizes = [ENCODERS[1], &["model.max_position_embeddings=16"]].concat();
    bench(&sizes).refuses(
        &[],
        &["tokenizer.max_length is 16, longer than the model's 15 positions"],
    );
}

#[test]
fn dropout_is_a_key_of_every_family() {
    for (objective, sizes) in [
        ("mlm", ENCODERS[0]),
        ("mlm", ENCODERS[1]),
        ("mlm", ENCODERS[2]),
        ("mlm", ENCODERS[3]),
        ("clm", GPT2),
        ("clm", DECODERS[0]),
        ("clm", DECODERS[1]),
        ("clm", DECODERS[2]),
        ("clm", DECODERS[3]),
    ] {
        let bench = bench(sizes);
        let plain = bench.train("plain", &[objective]);
        let dropped = bench.train("dropped", &[objective, "--set", "model.dropout=0.5"]);
        assert!(plain.weights() != dropped.weights(), "{sizes:?}");
        let rates = |run: &Run| -> Vec<f64> {
            let config = run.config();
            let keys = config.as_object().unwrap().iter();
            let rates = keys.filter(|(key, _)| key.contains("drop"));
            rates.filter_map(|(_, rate)| rate.as_f64()).collect()
        };
        let (none, half) = (rates(&plain), rates(&dropped));
        assert!(
            !none.is_empty() && none.iter().all(|rate| *rate == 0.0),
            "{none:?}"
        );
        assert!(half.iter().all(|rate| *rate == 0.5), "{half:?}");
        // Of a bundle too, whatever it was trained with.
        let args = [
            objective,
            "--from",
            "plain",
            "--set",
            "strategy.dropout=0.25",
        ];
        let again = rates(&bench.train("again", &args));
        assert!(again.iter().all(|rate| *rate == 0.25), "{again:?}");
    }
}

// Starts.

#[test]
fn pretraining_goes_on_from_a_bundle_with_its_tokenizer() {
    for (objective, sizes) in [("mlm", ENCODERS[0]), ("mlm", ENCODERS[2]), ("clm", GPT2)] {
        let bench = bench(sizes);
        let learn = [objective, "--steps", "100", "--set", "optimizer.lr=0.01"];
        let first = bench.train("first", &learn);
        let more: String = (0..300)
            .map(|n| format!("{n} a tool of the bird\n"))
            .collect();
        bench.write("more.txt", more);
        let args = [
            objective,
            "--from",
            "first",
            "--data",
            "more.txt",
            "--set",
            "optimizer.lr=0.0",
        ];
        let second = bench.train("second", &args);
        let tokenizer = |run: &Run| fs::read(run.path().join("model/tokenizer.json")).unwrap();
        assert!(tokenizer(&second) == tokenizer(&first), "{objective}");
        // At a rate of 0 the weights are those that it started from.
        assert!(second.weights() == first.weights(), "{objective}");
        let (best, start) = (
            first.metric("valid", "loss"),
            second.metric("valid", "loss"),
        );
        assert!(start[0] < best[0], "{objective}: {start:?} {best:?}");
    }
}

#[test]
fn a_resumed_run_may_be_extended() {
    let bench = bench(ENCODERS[0]);
    let whole = bench.train("whole", &["--steps", "40"]);
    bench.train("run", &["--steps", "20"]);
    let mut extend = bench.bare(&["--resume", "--out", "run", "--steps", "40", "--ui", "none"]);
    let (run, _) = bench.finish(&mut extend, "run");
    assert_eq!(run.summary()["steps"], 40);
    assert_eq!(run.setting("training.steps").as_integer(), Some(40));
    assert!(run.weights() == whole.weights());
    // What it has trained can't be taken back.
    let mut shorten = bench.bare(&["--resume", "--out", "run", "--steps", "10", "--ui", "none"]);
    bench.refuses_command(&mut shorten, &["10", "40"]);
}

#[test]
fn a_resumed_run_finds_data_that_has_moved() {
    let bench = bench(ENCODERS[0]);
    let whole = bench.train("whole", &["--steps", "40"]);
    bench.train("run", &["--steps", "20"]);
    fs::rename(bench.path("texts.txt"), bench.path("moved.txt")).unwrap();
    let resume = |data: &str| {
        let args = [
            "--resume", "--out", "run", "--steps", "40", "--data", data, "--ui", "none",
        ];
        bench.bare(&args)
    };
    bench.refuses_command(&mut resume("nowhere.txt"), &["nowhere.txt: no such file"]);
    let others: String = (0..300).map(|n| format!("{n} another text\n")).collect();
    bench.write("others.txt", others);
    let words = ["run: the training data or its tokenizer are not those that the run began with"];
    bench.refuses_command(&mut resume("others.txt"), &words);
    let (run, _) = bench.finish(&mut resume("moved.txt"), "run");
    assert!(run.weights() == whole.weights());
}

// Adapters.

#[test]
fn an_adapter_trains_few_parameters_and_leaves_merged_weights_and_its_own() {
    for (objective, sizes) in [("mlm", ENCODERS[0]), ("clm", GPT2)] {
        let bench = bench(sizes);
        let base = bench.train("base", &[objective]);
        for (kind, more) in [
            ("lora", &[][..]),
            ("dora", &["adapter.dora=true", "adapter.rslora=true"]),
        ] {
            let own = ["adapter.kind=lora", "adapter.rank=2", "optimizer.lr=0.05"];
            let args = [
                &[objective, "--from", "base"],
                &sets(&[&own, more].concat())[..],
            ]
            .concat();
            let run = bench.train(kind, &args);
            let parameters = &run.summary()["parameters"];
            let [total, trainable] =
                ["total", "trainable"].map(|key| parameters[key].as_u64().unwrap());
            assert!(
                trainable > 0 && trainable * 10 < total,
                "{trainable} of {total}"
            );
            assert!(run.weights() != base.weights());
            assert_eq!(
                run.weights().len(),
                base.weights().len(),
                "the names of a model without one"
            );
            let folder = run.path().join("model/adapter");
            let settings = fs::read(folder.join("adapter_config.json")).unwrap();
            let settings: Value = serde_json::from_slice(&settings).unwrap();
            assert_eq!(settings["r"], 2);
            assert_eq!(settings["use_dora"], kind == "dora");
            assert!(folder.join("adapter_model.safetensors").is_file());
            // The adapter's folder is a bundle: its base with the adapter in it.
            let from = folder.display().to_string();
            let still = [
                objective,
                "--from",
                &from,
                "--set",
                "optimizer.lr=0.0",
                "--steps",
                "5",
            ];
            let again = bench.train(&format!("{kind}-again"), &still);
            assert!(again.weights() == run.weights(), "{objective} {kind}");
        }
    }
}

#[test]
fn virtual_tokens_and_bottlenecks_train_and_leave_the_weights_as_they_were() {
    for (objective, sizes) in [("mlm", ENCODERS[0]), ("clm", GPT2)] {
        let bench = bench(sizes);
        let short = ["tokenizer.max_length=12", "training.packing=false"];
        let base = bench.train("base", &[&[objective], &sets(&short)[..]].concat());
        for (kind, count) in [("bottleneck", 8), ("prompt", 1), ("prefix", 1)] {
            let own = format!("adapter.kind={kind}");
            let more = [&own, "adapter.virtual_tokens=4", "optimizer.lr=0.05"];
            let all = [&short[..], &more].concat();
            let args = [&[objective, "--from", "base"], &sets(&all)[..]].concat();
            let run = bench.train(kind, &args);
            assert!(run.weights() == base.weights(), "{objective} {kind}");
            let folder = run.path().join("model/adapter");
            let bytes = fs::read(folder.join("adapter_model.safetensors")).unwrap();
            let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
            assert_eq!(tensors.len(), count, "{objective} {kind}");
            let losses = run.metric("valid", "loss");
            assert!(losses.iter().all(|loss| loss.is_finite()), "{losses:?}");
            let words = ["cannot be merged into its model"];
            bench.refuses(&[objective, "--from", kind], &words);
        }
    }
    let bench = bench(GPT2);
    let prompt = sets(&["adapter.kind=prompt", "adapter.virtual_tokens=4"]);
    let words = ["training.packing is true", "a row of its own"];
    bench.refuses(&[&["clm"], &prompt[..]].concat(), &words);
}

#[test]
fn a_killed_adapter_goes_on_to_the_same_end() {
    let bench = bench(ENCODERS[0]);
    bench.train("base", &[]);
    let own = [
        "adapter.kind=lora",
        "adapter.dropout=0.1",
        "adapter.dora=true",
        "optimizer.lr=0.02",
        "optimizer.unfreeze_every=20",
        "training.ema=0.9",
        "training.checkpoint_every=7",
    ];
    let args = [&["--from", "base", "--steps", "200"], &sets(&own)[..]].concat();
    let whole = bench.train("whole", &args);
    assert_resumable(&bench, &whole, &args, &[2, 12, 60]);
}

#[test]
fn an_adapter_that_fits_no_layer_is_refused() {
    let bench = bench(ENCODERS[0]);
    for (setting, words) in [
        (
            "adapter.targets=[\"q_lin\"]",
            "q_lin, and no linear layer has such a name",
        ),
        ("adapter.targets=[\"(\"]", "adapter.targets"),
        ("adapter.rank=0", "adapter.rank is 0"),
    ] {
        bench.refuses(&["--set", "adapter.kind=lora", "--set", setting], &[words]);
    }
}
