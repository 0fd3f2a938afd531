//! The launch scripts, run with fake gcloud, srun and lambert programs that record their calls.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A directory with fake programs, which is first on the PATH.
struct Stage {
    directory: tempfile::TempDir,
}

impl Stage {
    fn new() -> Stage {
        let stage = Stage { directory: tempfile::tempdir().unwrap() };
        fs::create_dir(stage.path("bin")).unwrap();
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes the fake program `path` with the script `body`.
    fn fake_program(&self, path: &str, body: &str) {
        let path = self.path(path);
        fs::write(&path, format!("#!/usr/bin/env bash\n{body}")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn run(&self, script: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
        let path = format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap());
        Command::new("bash")
            .arg(Path::new(ROOT).join(script))
            .args(arguments)
            .envs(environment.iter().copied())
            .env("PATH", path)
            .env("STAGE", self.directory.path())
            .current_dir(self.directory.path())
            .output()
            .unwrap()
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Records every call, quoted for a shell, and runs `ssh` commands on two hosts, each with its own home directory.
const GCLOUD: &str = r#"
printf '%q ' gcloud "$@" >>"$STAGE/calls" && echo >>"$STAGE/calls"
for i in 0 1; do mkdir -p "$STAGE/host-$i"; done
verb=$4
if [ "$verb" = scp ]; then
  files=()
  for word in "${@:5}"; do case "$word" in --*|*:*) break ;; *) files+=("$word") ;; esac; done
  for i in 0 1; do cp -r "${files[@]}" "$STAGE/host-$i/lambert/"; done
  exit
fi
while [ $# -gt 0 ]; do
  case "$1" in --command) command=$2 ;; --output-directory) logs=$2 ;; esac
  shift
done
status=0
for i in 0 1; do
  out=/dev/stdout
  if [ -n "${logs:-}" ]; then out=$logs/$i.log; fi
  (cd "$STAGE/host-$i" && HOME=$PWD bash -c "$command") >"$out" || status=1
done
exit $status
"#;

/// Prints its arguments; `pretrain` runs until it is interrupted.
const LAMBERT: &str = r#"
echo "lambert $*"
if [ "$1" = pretrain ]; then
  trap 'echo interrupted; exit 130' TERM
  for _ in $(seq 600); do sleep 0.1; done
fi
"#;

/// Waits until a file contains `words`.
fn wait_for(path: &Path, words: &str) {
    for _ in 0..600 {
        if fs::read_to_string(path).is_ok_and(|text| text.contains(words)) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("{} does not contain {words:?}: {:?}", path.display(), fs::read_to_string(path));
}

#[test]
fn a_dry_run_prints_the_commands_of_a_real_run() {
    let stage = Stage::new();
    stage.fake_program("bin/gcloud", GCLOUD);
    fs::create_dir(stage.path("release")).unwrap();
    stage.fake_program("release/lambert", LAMBERT);
    fs::write(stage.path("run.toml"), "name = \"x\"\n").unwrap();
    fs::create_dir(stage.path("logs")).unwrap();
    let slice = ["--name", "pod", "--zone", "us-east1-d", "--project", "p"];
    let built = stage.path("release/lambert").display().to_string();
    let (first, second) = (stage.path("host-0/lambert"), stage.path("host-1/lambert"));
    let pod = |words: &[&str]| {
        let environment = [("LAMBERT", built.as_str())];
        let dry = stage.run("scripts/launch/tpu-pod", &[&["--dry-run"], &slice[..], words].concat(), &environment);
        assert!(dry.status.success(), "{}", stderr(&dry));
        let _ = fs::remove_file(stage.path("calls"));
        let real = stage.run("scripts/launch/tpu-pod", &[&slice[..], words].concat(), &environment);
        assert_eq!(stdout(&dry), fs::read_to_string(stage.path("calls")).unwrap(), "{words:?}");
        (stdout(&dry), real)
    };

    let (commands, done) = pod(&["install"]);
    assert!(done.status.success(), "{}", stderr(&done));
    let at = "--zone us-east1-d --project p --worker all";
    let expected = [
        format!("gcloud compute tpus tpu-vm ssh pod {at} --command mkdir\\ -p\\ lambert "),
        format!("gcloud compute tpus tpu-vm scp {built} pod:lambert/ {at} "),
    ];
    assert_eq!(commands.lines().take(2).collect::<Vec<_>>(), expected);
    assert!(commands.lines().nth(2).unwrap().contains("plugin\\ install\\ tpu"), "{commands}");
    let (_, done) = pod(&["copy", "run.toml"]);
    assert!(done.status.success() && second.join("run.toml").exists(), "{}", stderr(&done));

    // Every host gets the arguments unchanged.
    let (_, done) = pod(&["start", "run.toml", "--set", "name=it's my run"]);
    assert!(done.status.success(), "{}", stderr(&done));
    for host in [&first, &second] {
        wait_for(&host.join("pretrain.log"), "lambert pretrain run.toml --platform tpu --set name=it's my run\n");
    }
    let (_, again) = pod(&["start", "run.toml"]);
    assert!(!again.status.success() && stderr(&again).contains("already active"), "{}", stderr(&again));
    let (_, status) = pod(&["status"]);
    assert_eq!(stdout(&status).matches("running\n").count(), 2, "{}", stdout(&status));
    let (_, done) = pod(&["stop"]);
    assert!(done.status.success(), "{}", stderr(&done));
    for host in [&first, &second] {
        wait_for(&host.join("pretrain.log"), "interrupted\n");
    }
    while stdout(&pod(&["status"]).1).contains("running\n") {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let (_, done) = pod(&["resume", "run.toml"]);
    assert!(done.status.success(), "{}", stderr(&done));
    wait_for(&first.join("pretrain.log"), "lambert pretrain run.toml --platform tpu --resume\n");
    wait_for(&second.join("pretrain.log"), "lambert pretrain run.toml --platform tpu --resume\n");
    let (_, done) = pod(&["logs", "logs"]);
    assert!(done.status.success(), "{}", stderr(&done));
    for worker in ["0", "1"] {
        let log = fs::read_to_string(stage.path("logs").join(format!("{worker}.log"))).unwrap();
        assert!(log.contains("interrupted\n") && log.contains("--resume"), "{log}");
    }
    pod(&["stop"]);
}

#[test]
fn invalid_arguments_are_reported_before_any_command_runs() {
    let stage = Stage::new();
    stage.fake_program("bin/gcloud", GCLOUD);
    fs::create_dir(stage.path("directory")).unwrap();
    fs::write(stage.path("run.toml"), "").unwrap();
    let call = |words: &str, lambert: &str| {
        let words: Vec<&str> = words.split_whitespace().collect();
        stage.run("scripts/launch/tpu-pod", &words, &[("LAMBERT", lambert)])
    };
    let answered = |words: &str, code: i32, expected: &str| {
        let answer = call(words, "nowhere");
        assert_eq!(answer.status.code(), Some(code), "{words}");
        let message = stderr(&answer);
        assert!(message.starts_with("tpu-pod: ") && message.contains(expected), "{words}: {message}");
        assert_eq!((stdout(&answer).as_str(), message.lines().count()), ("", 1), "{words}");
    };
    for (words, expected) in [
        ("", "--name requires the name of the slice"),
        ("--name pod start run.toml", "--zone requires the zone of the slice"),
        ("--zone z --name", "--name requires a value"),
        ("--name --zone z status", "--name requires a value"),
        ("--name= --zone z status", "--name requires a value"),
        ("--nmae pod --zone z status", "unknown option --nmae"),
        ("--name pod --zone z", "a command is required: install, copy"),
        ("--name pod --zone z fly", "unknown command fly"),
        ("--name pod --zone z start", "start requires a run file"),
        ("--name pod --zone z copy", "copy requires the names of files"),
        ("--name pod --zone z logs a b", "logs requires one directory"),
        ("--name pod --zone z stop now", "stop takes no further arguments, got now"),
        ("--name pod --zone z status --set x=1", "status takes no further arguments, got --set x=1"),
        ("--name pod --zone z install run.toml", "install takes no further arguments, got run.toml"),
    ] {
        answered(words, 2, expected);
    }
    for (words, expected) in [
        ("--name pod --zone z start absent.toml", "absent.toml is not a file"),
        ("--name pod --zone z copy run.toml absent.toml", "absent.toml is not a file"),
        ("--name pod --zone z copy directory", "directory is not a file"),
        ("--name pod --zone z install", "nowhere is not a file; build it"),
    ] {
        answered(words, 1, expected);
    }
    let other = call("--name pod --zone z install", &stage.path("run.toml").display().to_string());
    assert!(stderr(&other).contains("must be lambert, because"), "{}", stderr(&other));
    assert!(!stage.path("calls").exists(), "no command ran");

    let help = call("--help", "nowhere");
    assert!(
        help.status.success() && stdout(&help).contains("[--dry-run] --name NAME --zone ZONE"),
        "{}",
        stdout(&help)
    );
    let dry = call("--dry-run --name=my-pod --zone=z --project=p=q status", "nowhere");
    assert!(stdout(&dry).contains("ssh my-pod --zone z --project p=q --worker all"), "{}", stdout(&dry));
}

#[test]
fn a_process_with_a_reused_process_id_is_not_stopped() {
    let stage = Stage::new();
    stage.fake_program("bin/gcloud", GCLOUD);
    fs::write(stage.path("run.toml"), "").unwrap();
    let pod =
        |words: &[&str]| stage.run("scripts/launch/tpu-pod", &[&["--name", "pod", "--zone", "z"], words].concat(), &[]);
    let mut other = Command::new("sleep").arg("600").spawn().unwrap();
    for host in ["host-0/lambert", "host-1/lambert"] {
        fs::create_dir_all(stage.path(host)).unwrap();
        stage.fake_program(&format!("{host}/lambert"), LAMBERT);
        fs::write(stage.path(host).join("pid"), other.id().to_string()).unwrap();
        fs::write(stage.path(host).join("pretrain.log"), "").unwrap();
    }
    assert_eq!(stdout(&pod(&["status"])), "ended\nended\n");
    let stopped = pod(&["stop"]);
    assert!(stopped.status.success() && stderr(&stopped).contains("the run is not active"), "{}", stderr(&stopped));
    assert!(other.try_wait().unwrap().is_none(), "an unrelated process was stopped");
    let started = pod(&["start", "run.toml"]);
    assert!(started.status.success(), "{}", stderr(&started));
    wait_for(&stage.path("host-1/lambert/pretrain.log"), "lambert pretrain run.toml");
    assert!(pod(&["stop"]).status.success());
    other.kill().unwrap();
    other.wait().unwrap();
}

#[test]
fn slurm_processes_get_their_host_numbers() {
    let stage = Stage::new();
    stage.fake_program("bin/lambert", r#"echo "$SLURM_PROCID: $*" >>"$STAGE/calls""#);
    // Options come first, as for srun, then one process per task runs.
    let srun = r#"
while [ "${1#--}" != "$1" ]; do shift; done
export SLURM_NTASKS=3
for SLURM_PROCID in 0 1 2; do export SLURM_PROCID; "$@"; done
"#;
    stage.fake_program("bin/srun", srun);
    let job = [("SLURM_JOB_ID", "77"), ("SLURM_SUBMIT_DIR", "/shared")];
    let run = |environment: &[(&str, &str)]| {
        let _ = fs::remove_file(stage.path("calls"));
        let words = ["run.toml", "--set", "name=it's"];
        let done = stage.run("scripts/launch/slurm.sbatch", &words, environment);
        assert!(done.status.success(), "{}", stderr(&done));
        fs::read_to_string(stage.path("calls")).unwrap()
    };
    let expected = |coordinator: &str| -> String {
        let common = format!("pretrain run.toml --platform cuda --resume --coordinator {coordinator} --set name=it's");
        (0..3).map(|host| format!("{host}: {common} --hosts 3 --host {host}\n")).collect()
    };
    assert_eq!(run(&job), expected("/shared/.lambert-hosts/77-0"));
    let again = [("SLURM_RESTART_COUNT", "2"), ("COORDINATOR", "etcd://10.0.0.2:2379/lambert")];
    assert_eq!(run(&[&job[..], &again].concat()), expected("etcd://10.0.0.2:2379/lambert/77-2"));

    let outside = stage.run("scripts/launch/slurm.sbatch", &["run.toml"], &[]);
    assert!(!outside.status.success() && stderr(&outside).contains("submit it with sbatch"), "{}", stderr(&outside));
    // Slurm reads its options from the comments before the first command.
    let text = fs::read_to_string(Path::new(ROOT).join("scripts/launch/slurm.sbatch")).unwrap();
    let options: Vec<&str> = text.lines().take_while(|line| line.starts_with('#')).collect();
    for option in ["--nodes=8", "--ntasks-per-node=1", "--gpus-per-node=8", "--signal=TERM@300", "--requeue"] {
        assert!(options.contains(&format!("#SBATCH {option}").as_str()), "{option}");
    }
}

#[test]
fn the_ten_commands_of_the_documentation_are_valid() {
    let page = fs::read_to_string(Path::new(ROOT).join("docs/pods.md")).unwrap();
    let (_, section) = page.split_once("## From the laptop to a TPU slice").unwrap();
    let block = section.split("```").nth(1).unwrap().strip_prefix("sh\n").unwrap();
    let commands: Vec<Vec<&str>> = block.lines().map(|line| line.split(' ').collect()).collect();
    assert_eq!(commands.len(), 10);
    let mut checked = 0;
    for words in &commands {
        match words[0] {
            "lambert" => {
                use clap::Parser;
                lambert::cli::Cli::try_parse_from(words).unwrap_or_else(|e| panic!("{words:?}: {e}"));
            }
            "scripts/launch/tpu-pod" => {
                let lambert = env!("CARGO_BIN_EXE_lambert");
                let mut command = Command::new("bash");
                command.args([words[0], "--dry-run"]).args(&words[1..]).current_dir(ROOT).env("LAMBERT", lambert);
                let printed = command.output().unwrap();
                assert!(printed.status.success() && !printed.stdout.is_empty(), "{words:?}: {}", stderr(&printed));
            }
            script => assert!(script == "gcloud" || Path::new(ROOT).join(script).exists(), "{script}"),
        }
        checked += usize::from(words[0] != "gcloud");
    }
    assert_eq!(checked, 9);
}
