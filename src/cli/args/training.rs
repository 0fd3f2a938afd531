//! The arguments of `pretrain` and `finetune`: a run file, what replaces its keys, and whether to resume.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::cli::args::device::DeviceArgs;
use crate::cli::args::shell::quoted;
use crate::run::initial_state::ResumeOptions;

#[derive(Debug, Args)]
pub struct TrainingArgs {
    /// Run file; scripts/runs/ has examples with comments
    #[arg(value_name = "RUN.toml")]
    pub run: PathBuf,
    /// Resume from the newest checkpoint in the run directory; start a new run if there is none
    #[arg(long)]
    resume: bool,
    /// With --resume: accept changed settings that affect the weights
    #[arg(long, requires = "resume")]
    accept_changes: bool,
    /// Save and end with code 75 after this time since the start, for example 3h or 90min; leave time for one step and a save
    #[arg(long, value_name = "TIME")]
    max_time: Option<humantime::Duration>,
    /// Start even if less memory is free than the run requires
    #[arg(long)]
    pub ignore_memory: bool,
    /// Override a key of the run file, for example optimizer.beta2=0.98; repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    #[command(flatten)]
    pub devices: DeviceArgs,
}

impl TrainingArgs {
    pub fn resume_options(&self) -> ResumeOptions {
        ResumeOptions { resume: self.resume, accept_changes: self.accept_changes }
    }

    pub fn max_time(&self) -> Option<Duration> {
        self.max_time.map(Into::into)
    }

    /// Returns the command that resumes the run, for example `lambert pretrain RUN.toml --resume`, without the options that
    /// only the verb has.
    pub fn resume_command(&self, verb: &str) -> String {
        let mut command = format!("lambert {verb} {} --resume", quoted(&self.run.display().to_string()));
        self.set.iter().for_each(|set| command += &format!(" --set {}", quoted(set)));
        if let Some(time) = self.max_time {
            command += &format!(" --max-time {}", quoted(&time.to_string()));
        }
        if self.ignore_memory {
            command += " --ignore-memory";
        }
        command + &self.devices.to_command_line()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resume_command_is_quoted_for_the_shell() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            training: TrainingArgs,
        }
        let line = ["x", "a b.toml", "--set", "name=it's", "--max-time", "90min", "--devices", "2"];
        let training = <Line as clap::Parser>::parse_from(line).training;
        assert_eq!(
            training.resume_command("pretrain"),
            r"lambert pretrain 'a b.toml' --resume --set 'name=it'\''s' --max-time '1h 30m' --devices 2"
        );
    }
}
