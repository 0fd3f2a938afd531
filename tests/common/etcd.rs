//! An etcd server on the loopback interface. If etcd is missing, the tests try to install Debian's package `etcd-server`.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

/// Set this variable to 1 on a machine without etcd: the tests then omit etcd.
const OPT_OUT: &str = "LAMBERT_TEST_WITHOUT_ETCD";

/// An etcd server with an empty store. Dropping the value stops the server.
pub struct Etcd {
    server: Child,
    address: String,
    _data: tempfile::TempDir,
}

impl Etcd {
    /// Starts a server, or returns `None` if [`OPT_OUT`] is set.
    pub fn start() -> Option<Etcd> {
        if std::env::var(OPT_OUT).is_ok_and(|value| value == "1") {
            return None;
        }
        let data = tempfile::tempdir().expect("a temporary directory");
        // Two free ports.
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

    /// Returns a coordinator address in this server. The first request waits until the server is ready.
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

/// Returns the path of the installed server. Tests run at the same time, and only one of them may install it.
fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    let installed = || {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).map(|directory| directory.join("etcd")).find(|file| file.is_file())
    };
    let install = || {
        if Path::new("/usr/bin/apt-get").exists() {
            for arguments in [["update", "-qq"].as_slice(), &["install", "-y", "-qq", "etcd-server"]] {
                let mut apt = Command::new("apt-get");
                let _ = apt.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").stdout(Stdio::null()).status();
            }
        }
        let hint =
            format!("`apt-get install etcd-server` as root, put etcd on the PATH, or set {OPT_OUT}=1 to omit etcd");
        installed().unwrap_or_else(|| panic!("this test needs etcd: {hint}"))
    };
    BINARY.get_or_init(|| installed().unwrap_or_else(install))
}
