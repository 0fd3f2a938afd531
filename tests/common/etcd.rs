//! A real etcd on loopback, for the tests that meet there. It comes from Debian's package `etcd-server`, which is installed
//! if it is missing and this process may.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Set to 1 on a machine that has no etcd and can have none: the tests that need it then test nothing.
const OPT_OUT: &str = "LAMBERT_TEST_WITHOUT_ETCD";

/// A server with an empty store; ends with this.
pub struct Etcd {
    server: Child,
    address: String,
    _data: tempfile::TempDir,
}

impl Etcd {
    /// Starts a server; none if the tests were told to do without.
    pub fn start() -> Option<Etcd> {
        if std::env::var(OPT_OUT).is_ok_and(|value| value == "1") {
            return None;
        }
        let data = tempfile::tempdir().expect("a temporary directory");
        // Two ports that are free now.
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("loopback has a free port"));
        let [clients, peers] = listeners.map(|listener| listener.local_addr().expect("it is bound").to_string());
        let (client_url, peer_url) = (format!("http://{clients}"), format!("http://{peers}"));
        let mut command = Command::new(binary());
        command.arg("--data-dir").arg(data.path());
        for (option, value) in [
            ("--listen-client-urls", client_url.as_str()),
            ("--advertise-client-urls", client_url.as_str()),
            ("--listen-peer-urls", peer_url.as_str()),
            ("--initial-advertise-peer-urls", peer_url.as_str()),
            ("--initial-cluster", &format!("default={peer_url}")),
        ] {
            command.args([option, value]);
        }
        let server = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("etcd starts");
        Some(Etcd { server, address: clients, _data: data })
    }

    /// A coordinator in this server, as the command line takes it. The first request waits until it serves.
    pub fn coordinator(&self, prefix: &str) -> String {
        format!("etcd://{}/{prefix}", self.address)
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// The installed server.
fn binary() -> PathBuf {
    let installed = || {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).map(|directory| directory.join("etcd")).find(|file| file.is_file())
    };
    installed().unwrap_or_else(|| {
        if Path::new("/usr/bin/apt-get").exists() {
            for arguments in [["update", "-qq"].as_slice(), &["install", "-y", "-qq", "etcd-server"]] {
                let mut apt = Command::new("apt-get");
                let _ = apt.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").stdout(Stdio::null()).status();
            }
        }
        let hint =
            format!("`apt-get install etcd-server` as root, put etcd on the PATH, or set {OPT_OUT}=1 to do without");
        installed().unwrap_or_else(|| panic!("this test needs etcd: {hint}"))
    })
}
