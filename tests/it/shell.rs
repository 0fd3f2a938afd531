//! `lambert completions` and `lambert man`.

use std::process::Command;

use crate::common::machine::Machine;
use crate::common::text;

#[test]
fn completions_are_made_for_every_shell_and_bash_accepts_its_own() {
    let machine = Machine::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = machine.lambert(&["completions", shell]);
        let script = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && script.contains("pretrain") && script.contains("accept-changes"), "{shell}");
        std::fs::write(machine.path(shell), script).unwrap();
    }
    machine.fails(&["completions", "csh"], 2, &["csh", "bash, elvish, fish, powershell, zsh"]);
    // The candidates for `lambert ev`.
    let ask = "source ./bash && COMP_WORDS=(lambert ev) COMP_CWORD=1 && _lambert lambert ev lambert && echo \"${COMPREPLY[@]}\"";
    if let Ok(output) = Command::new("bash").args(["-c", ask]).current_dir(machine.path("")).output() {
        assert_eq!(text(&output).trim(), "evaluate");
    }
}

#[test]
fn every_verb_has_a_man_page_with_its_options_and_examples() {
    let machine = Machine::new();
    let output = machine.lambert(&["man", "pages/man1"]);
    assert!(output.status.success(), "{}", text(&output));
    for (page, parts) in [
        ("lambert.1", ["pretrain", "Exit codes"]),
        ("lambert-pretrain.1", ["accept\\-changes", "Examples:"]),
        ("lambert-plugin-install.1", ["\\-\\-wheel", "Examples:"]),
    ] {
        let text = std::fs::read_to_string(machine.path("pages/man1").join(page)).unwrap();
        assert!(text.starts_with(".ie") && parts.iter().all(|part| text.contains(part)), "{page}: {text}");
    }
    assert!(machine.lambert(&["man", "pages/man1"]).status.success(), "its own pages are overwritten");
}
