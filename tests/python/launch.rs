//! The launch scripts pass shellcheck, and the JobSet of GKE has the fields of its API.

use std::process::Command;

use crate::common::text;
use crate::environment;
use serde_json::Value;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn scripts_pass_shellcheck() {
    let shellcheck = environment::programs().join("shellcheck");
    let files = ["scripts/launch/tpu-pod", "scripts/launch/slurm.sbatch"];
    let linted = Command::new(shellcheck).args(files).current_dir(ROOT).output().unwrap();
    assert!(linted.status.success(), "{}", text(&linted));
    for file in files {
        assert!(Command::new("bash").args(["-n", file]).current_dir(ROOT).status().unwrap().success());
    }
}

#[test]
fn the_jobset_requests_every_host_of_one_slice() {
    let read = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
    let python = environment::programs().join("python");
    let output = Command::new(python).args(["-c", read, "scripts/launch/gke-jobset.yaml"]).current_dir(ROOT).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let documents: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let [jobset] = documents.as_slice() else { panic!("one document") };
    assert_eq!((&jobset["apiVersion"], &jobset["kind"]), (&"jobset.x-k8s.io/v1alpha2".into(), &"JobSet".into()));

    // The allowed fields of each object; the API server rejects a misspelt one.
    let only = |at: &Value, fields: &[&str]| {
        let mut found: Vec<&str> = at.as_object().unwrap().keys().map(String::as_str).collect();
        let mut fields = fields.to_vec();
        found.sort_unstable();
        fields.sort_unstable();
        assert_eq!(found, fields);
    };
    only(jobset, &["apiVersion", "kind", "metadata", "spec"]);
    only(&jobset["metadata"], &["name", "annotations"]);
    only(&jobset["spec"], &["failurePolicy", "replicatedJobs"]);
    only(&jobset["spec"]["failurePolicy"], &["maxRestarts"]);
    let jobs = jobset["spec"]["replicatedJobs"].as_array().unwrap();
    assert_eq!(jobs.len(), 1, "one run is one slice");
    only(&jobs[0], &["name", "replicas", "template"]);
    let job = &jobs[0]["template"]["spec"];
    only(job, &["parallelism", "completions", "backoffLimit", "template"]);
    let pod = &job["template"]["spec"];
    only(
        pod,
        &[
            "serviceAccountName",
            "restartPolicy",
            "terminationGracePeriodSeconds",
            "nodeSelector",
            "containers",
            "volumes",
        ],
    );
    let container = &pod["containers"][0];
    only(container, &["name", "image", "command", "resources", "volumeMounts"]);

    // Chips of the topology = hosts × chips per host.
    let topology = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].as_str().unwrap();
    let chips: u64 = topology.split('x').map(|side| side.parse::<u64>().unwrap()).product();
    let resources = &container["resources"];
    assert_eq!(resources["requests"], resources["limits"], "chips are not shared");
    let of_a_host = resources["limits"]["google.com/tpu"].as_u64().unwrap();
    assert_eq!(job["parallelism"].as_u64().unwrap() * of_a_host, chips);
    assert_eq!(job["parallelism"], job["completions"]);
    assert_eq!((&jobs[0]["replicas"], &job["backoffLimit"]), (&1.into(), &0.into()));

    // Every mount has its volume, and the command line is valid.
    let names = |list: &Value| -> Vec<String> {
        let mut names: Vec<String> =
            list.as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&container["volumeMounts"]), names(&pod["volumes"]));
    let command: Vec<&str> =
        container["command"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
    let mut line = command;
    assert_eq!(line.remove(0), "lambert");
    use clap::Parser;
    lambert::cli::Cli::try_parse_from([&["lambert"], &line[..]].concat()).unwrap();
    let mounted = container["volumeMounts"][0]["mountPath"].as_str().unwrap();
    assert!(line[1].starts_with(mounted), "the run file is mounted where the command reads it");
}
