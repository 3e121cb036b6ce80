//! Dialogues: what is remembered, what is read again, commands, ends, and refusals.

use std::fs;
#[cfg(unix)]
use std::io::{Read, Write};
use std::process::Command;
#[cfg(unix)]
use std::process::{Child, Stdio};

use apps::chat::{Answer, Dialogue};
use apps::generate::{End, Generator, Request, Rules};
use burn::backend::Flex;
use model::generate::Sampling;

use crate::bundles::{Bundles, apps_with, bpe, gpt2, open, refused};

/// Few tokens a message: the small model has 40 positions. No letter in it is part of a longer token of [`bpe`].
const TEMPLATE: &str = "{% for message in messages %}\
{% if message['role'] == 'system' %}s{% elif message['role'] == 'user' %}u{% else %}a{% endif %}\
:{{ message['content'] }};{% endfor %}{% if add_generation_prompt %}a:{% endif %}";

const RULES: Rules<'static> = Rules {
    max_tokens: 3,
    sampling: Sampling::GREEDY,
    stop: &[],
    seed: 0,
    chosen: 0,
    ignore_end: false,
};

fn add_template(model: &str, template: &str) {
    fs::write(format!("{model}/chat_template.jinja"), template).unwrap();
}

/// A model that answers in its own way to each dialogue.
fn talker(bundles: &Bundles) -> String {
    let model = bundles.causal_lm("talker");
    add_template(&model, TEMPLATE);
    model
}

/// A model that answers "xxx...".
fn parrot(bundles: &Bundles) -> String {
    let x = bpe().encode_one("x", 9).unwrap()[0];
    let model = bundles.one_token_lm("parrot", x);
    add_template(&model, TEMPLATE);
    model
}

fn generator(model: &str) -> Generator<Flex> {
    Generator::open(&open(model), &Default::default()).unwrap()
}

/// Asks and answers; how many turns were forgotten, and the answer.
fn say(dialogue: &mut Dialogue<Flex>, message: &str, rules: &Rules) -> (usize, Answer) {
    let question = dialogue.ask(message, rules.max_tokens).unwrap();
    let forgotten = question.forgotten;
    let mut shown = String::new();
    let mut show = |piece: &str| {
        shown.push_str(piece);
        Ok(())
    };
    let answer = dialogue
        .answer(question, rules, &|| false, &mut show)
        .unwrap();
    assert_eq!(shown, answer.text);
    (forgotten, answer)
}

/// What the command says to these lines: on standard output, and on standard error.
fn said(model: &str, more: &[&str], lines: &str) -> (String, String) {
    let args = [&["chat", "--model", model][..], more].concat();
    let output = apps_with(&args, lines);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{errors}");
    (String::from_utf8(output.stdout).unwrap(), errors)
}

#[test]
fn answers_are_those_to_the_whole_dialogue() {
    let bundles = Bundles::new();
    let model = talker(&bundles);
    let generator = generator(&model);
    let mut dialogue = Dialogue::new(&generator, Some("qz")).unwrap();
    // A token may be a byte that is no character, which is three tokens when it is read again: few, that all have their place.
    let rules = Rules {
        max_tokens: 2,
        ..RULES
    };
    let mut text = "s:qz;".to_string();
    for message in ["z", "qq"] {
        text += &format!("u:{message};a:");
        let request = Request {
            prompt: &text,
            max_tokens: rules.max_tokens,
            sampling: Sampling::GREEDY,
            stop: &[],
            seed: 0,
            cache: false,
            ignore_end: false,
            chat: false,
        };
        let mut expected = String::new();
        let mut show = |piece: &str| {
            expected.push_str(piece);
            Ok(())
        };
        let (_, end) = generator.generate(&request, &mut show).unwrap();
        let (forgotten, answer) = say(&mut dialogue, message, &rules);
        assert_eq!((forgotten, answer.end), (0, end));
        assert_eq!(answer.text, expected, "{text}");
        text += &format!("{expected};");
    }
}

#[test]
fn what_was_read_is_not_read_again_while_the_dialogue_goes_on_from_it() {
    let bundles = Bundles::new();
    let generator = generator(&parrot(&bundles));
    let mut dialogue = Dialogue::new(&generator, None).unwrap();
    let (_, answer) = say(&mut dialogue, "qq", &RULES);
    let expected = Answer {
        text: "xxx".into(),
        end: End::Length,
        kept: 0,
    };
    assert_eq!(answer, expected);
    // "u:qq;a:" and "xx": of the last token nothing was asked.
    let (_, answer) = say(&mut dialogue, "q", &RULES);
    assert_eq!((answer.text.as_str(), answer.kept), ("xxx", 9));
    // "u:qq;a:xxx;u:q;a:" and "xx".
    let (_, answer) = say(&mut dialogue, "z", &RULES);
    assert_eq!((answer.text.as_str(), answer.kept), ("xxx", 19));
    dialogue.reset();
    let (_, answer) = say(&mut dialogue, "qq", &RULES);
    assert_eq!((answer.text.as_str(), answer.kept), ("xxx", 0));
}

#[test]
fn a_template_that_writes_messages_anew_has_them_read_anew() {
    let bundles = Bundles::new();
    let model = parrot(&bundles);
    add_template(
        &model,
        "{{ messages | length }}{{ messages[-1]['content'] }}",
    );
    let generator = generator(&model);
    let mut dialogue = Dialogue::new(&generator, None).unwrap();
    for message in ["q", "zz", "q"] {
        let (_, answer) = say(&mut dialogue, message, &RULES);
        assert_eq!((answer.text.as_str(), answer.kept), ("xxx", 0));
    }
}

#[test]
fn a_dialogue_that_is_too_long_forgets_its_oldest_turns() {
    let bundles = Bundles::new();
    let model = parrot(&bundles);
    let generator = generator(&model);
    let mut dialogue = Dialogue::new(&generator, Some("zz")).unwrap();
    // A turn, "u:q;a:xxx;", has 10 tokens, what is told in front 5, the new message 6; 3 of 40 positions are for the answer.
    let forgotten = (0..5).map(|_| say(&mut dialogue, "q", &RULES).0);
    assert_eq!(forgotten.collect::<Vec<_>>(), [0, 0, 0, 1, 1]);
    let long = "q".repeat(20);
    // 5 and 25 tokens: there is no room for a turn of 10.
    assert_eq!(say(&mut dialogue, &long, &RULES).0, 3);

    let (text, told) = said(&model, &["--max-tokens", "3"], &"q\n".repeat(5));
    assert_eq!(text, "xxx\n".repeat(5));
    let note = "note: the dialogue is too long for the positions of the model; its oldest turn is forgotten\n";
    assert_eq!(told.matches(note).count(), 1, "{told}");
    assert!(told.contains("(as many as asked for)"), "{told}");
    let (text, told) = said(&model, &[], &"q".repeat(34));
    // The message has 39 tokens: the 40th is the last that is read, and one more is chosen.
    assert_eq!(text, "xx\n");
    assert!(
        told.ends_with("(the model has no position for more)\n"),
        "{told}"
    );

    // What was answered before stays.
    let args = ["chat", "--model", &model, "--max-tokens", "3"];
    let output = apps_with(&args, &format!("q\n{}\n", "q".repeat(40)));
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(output.stdout, b"xxx\n");
    let told = String::from_utf8(output.stderr).unwrap();
    let reason = "error: the message has 45 tokens with what the chat template writes around it; this model takes 40\n";
    assert!(told.ends_with(reason), "{told}");
}

#[test]
fn commands_and_ends_of_the_input_are_no_messages() {
    let bundles = Bundles::new();
    let model = talker(&bundles);
    let flags = ["--temperature", "1", "--seed", "7", "--max-tokens", "5"];
    let text = |lines: &str| said(&model, &flags, lines).0;
    let answer = text("q\n");
    assert!(answer.len() > 1, "{answer:?}");
    assert_eq!(text("q"), answer);
    assert_eq!(text("\n  \nq\r\n\n"), answer);
    assert_eq!(text("q\n/quit\nz\n"), answer);
    assert_eq!(text("q\n/reset\nq\n"), answer.repeat(2));
    assert_eq!(text(""), "");
    assert_eq!(text("/reset\n/quit"), "");
    // The second answer is to both messages, and its tokens are chosen by other numbers.
    assert_ne!(text("q\nq\n"), answer.repeat(2));
    let seed = ["--temperature", "1", "--seed", "8", "--max-tokens", "5"];
    assert_ne!(said(&model, &seed, "q\n").0, answer);
    let (_, told) = said(&model, &flags, "/reset\n");
    assert_eq!(told, "note: the dialogue begins anew\n");
}

#[test]
fn a_model_that_ends_its_answer_says_nothing_of_it() {
    let bundles = Bundles::new();
    // <|endoftext|>
    let model = bundles.one_token_lm("bundle", 0);
    add_template(&model, TEMPLATE);
    assert_eq!(said(&model, &[], "q\nz\n"), ("\n\n".into(), String::new()));
}

#[test]
fn models_and_flags_that_are_not_for_dialogues_are_refused() {
    let bundles = Bundles::new();
    let chat = |model: &str, more: &[&str]| {
        let place = format!("{}/", bundles.folder().display());
        refused(&[&["chat", "--model", model][..], more].concat()).replace(&place, "")
    };
    let plain = bundles.causal_lm("plain");
    assert_eq!(
        chat(&plain, &[]),
        "plain: the tokenizer has no chat template, so the model is not for dialogues; apps generate continues texts"
    );
    let masked = bundles.masked_lm("masked");
    let message = chat(&masked, &[]);
    assert!(message.ends_with("apps fill-mask is for it"), "{message}");
    let message = chat(&bundles.image_classifier("images"), &[]);
    assert!(message.contains("a text model is needed here"), "{message}");
    let model = talker(&bundles);
    assert_eq!(
        chat(&model, &["--top-p", "1.5"]),
        "--top-p is 1.5; it must be from 0 to 1"
    );
    let template =
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}u";
    add_template(&model, template);
    assert_eq!(
        chat(&model, &["--system", "be kind"]),
        "talker: the chat template: no system"
    );
    add_template(&model, "{% for %}");
    let message = chat(&model, &[]);
    assert!(
        message.starts_with("talker: the chat template: "),
        "{message}"
    );

    add_template(&model, TEMPLATE);
    let file = bundles.file("latin", b"q\xe9\n");
    let mut command = Command::new(env!("CARGO_BIN_EXE_apps"));
    command.args(["chat", "--model", &model]);
    command.stdin(fs::File::open(file).unwrap());
    let output = command.output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.starts_with("error: standard input: "), "{told}");
}

/// A conversation with a model that does not come to an end by itself.
#[cfg(unix)]
fn endless(bundles: &Bundles, max_tokens: &str) -> Child {
    let x = bpe().encode_one("x", 9).unwrap()[0];
    let mut sizes = gpt2();
    sizes.n_positions = 100_000;
    let model = bundles.one_token_lm_of("endless", x, sizes);
    add_template(&model, TEMPLATE);
    let mut command = Command::new(env!("CARGO_BIN_EXE_apps"));
    command.args(["chat", "--model", &model, "--max-tokens", max_tokens]);
    command.stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// What Ctrl-C does.
#[cfg(unix)]
fn interrupt(child: &Child) {
    let id = child.id().to_string();
    let status = Command::new("kill").args(["-INT", &id]).status();
    assert!(status.unwrap().success());
}

#[cfg(unix)]
#[test]
fn an_interrupt_ends_the_answer_alone() {
    let bundles = Bundles::new();
    let mut child = endless(&bundles, "90000");
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"q\n").unwrap();
    let mut begun = [0; 4];
    let stdout = child.stdout.as_mut().unwrap();
    stdout.read_exact(&mut begun).unwrap();
    assert_eq!(&begun, b"xxxx");
    interrupt(&child);
    stdin.write_all(b"/quit\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{told}");
    assert_eq!(told, "(stopped)\n");
    let rest = String::from_utf8(output.stdout).unwrap();
    assert_eq!(rest.trim_start_matches('x'), "\n");
}

#[cfg(unix)]
#[test]
fn an_interrupt_between_answers_ends_the_program() {
    use std::os::unix::process::ExitStatusExt;

    let bundles = Bundles::new();
    let mut child = endless(&bundles, "1");
    // Open until the end, so that it is not this that ends the program.
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"q\n").unwrap();
    let mut answer = [0; 2];
    let stdout = child.stdout.as_mut().unwrap();
    stdout.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"x\n");
    interrupt(&child);
    // SIGINT.
    assert_eq!(child.wait().unwrap().signal(), Some(2));
    drop(stdin);
}
