//! An S3 server (moto) on a local port, behind a proxy that injects faults.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

/// An S3 server with no buckets. Dropping the value stops the server.
pub struct Server {
    process: Child,
    /// Address of the proxy, `127.0.0.1:PORT`.
    pub host: String,
    faults: Arc<Faults>,
}

/// Remaining faults of the proxy.
#[derive(Default)]
struct Faults {
    refused_writes: AtomicUsize,
    cut_reads: AtomicUsize,
    /// Bytes of a response that arrive before it is cut.
    cut_after: AtomicUsize,
}

impl Server {
    pub fn start() -> Server {
        let mut process = Command::new(crate::environment::programs().join("python"))
            .args(["-u", "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let mut log = BufReader::new(process.stderr.take().expect("it was piped")).lines();
        let address = log
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| Some(line.split_once("Running on http://")?.1.trim().to_owned()));
        // Reads the rest of the log so that the server never blocks on a full pipe.
        std::thread::spawn(move || log.map_while(Result::ok).for_each(drop));
        let faults = Arc::new(Faults::default());
        let host = start_proxy(address.expect("the server logs its address"), faults.clone());
        Server { process, host, faults }
    }

    /// Answers the next `count` write requests with 503, like a busy server.
    pub fn refuse_writes(&self, count: usize) {
        self.faults.refused_writes.store(count, SeqCst);
    }

    /// Cuts the next `count` object responses of more than `4 * bytes` bytes after `bytes` bytes.
    pub fn cut_reads(&self, count: usize, bytes: usize) {
        self.faults.cut_after.store(bytes, SeqCst);
        self.faults.cut_reads.store(count, SeqCst);
    }

    /// Returns the number of reads still to cut.
    pub fn reads_to_cut(&self) -> usize {
        self.faults.cut_reads.load(SeqCst)
    }

    /// Returns the number of writes still to refuse.
    pub fn writes_to_refuse(&self) -> usize {
        self.faults.refused_writes.load(SeqCst)
    }

    /// Returns environment variables that direct `lambert` to this server.
    pub fn environment(&self) -> [(&'static str, String); 5] {
        [
            ("AWS_ENDPOINT_URL", format!("http://{}", self.host)),
            ("AWS_ACCESS_KEY_ID", "test".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("STORAGE_EMULATOR_HOST", format!("http://{}", self.host)),
        ]
    }

    fn request(&self, method: &str, path: &str, body: Vec<u8>) -> (u16, Vec<u8>) {
        lambert::tls::use_ring();
        let url = format!("http://{}/{path}", self.host);
        let method = method.parse().expect("a method");
        // The server requires a signature but does not verify it.
        let signed =
            "AWS4-HMAC-SHA256 Credential=test/20240101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";
        let request = reqwest::blocking::Client::new().request(method, url).header("authorization", signed).body(body);
        let answer = request.send().expect("the server answers");
        (answer.status().as_u16(), answer.bytes().expect("the server answers").to_vec())
    }

    pub fn create_bucket(&self, name: &str) {
        assert_eq!(self.request("PUT", name, Vec::new()).0, 200);
    }

    /// Returns the bytes of `bucket/key`.
    pub fn get(&self, path: &str) -> Option<Vec<u8>> {
        let (status, body) = self.request("GET", path, Vec::new());
        (status == 200).then_some(body)
    }

    pub fn put(&self, path: &str, body: Vec<u8>) {
        assert_eq!(self.request("PUT", path, body).0, 200);
    }

    pub fn delete(&self, path: &str) {
        assert_eq!(self.request("DELETE", path, Vec::new()).0, 204);
    }

    /// Returns the sorted keys of a bucket below `prefix`.
    pub fn keys(&self, bucket: &str, prefix: &str) -> Vec<String> {
        let (_, body) = self.request("GET", &format!("{bucket}?list-type=2&prefix={prefix}"), Vec::new());
        let text = String::from_utf8(body).expect("a listing is text");
        let keys = text.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next());
        keys.map(str::to_owned).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Starts a proxy to `server` that injects `faults`, and returns its address.
fn start_proxy(server: String, faults: Arc<Faults>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let host = listener.local_addr().expect("it is bound").to_string();
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let (server, faults) = (server.clone(), faults.clone());
            std::thread::spawn(move || {
                // If one end closes the connection, the proxy closes the other.
                let _ = forward(client, &server, &faults);
            });
        }
    });
    host
}

/// Forwards one request; the connection is then closed on both sides.
fn forward(mut client: TcpStream, server: &str, faults: &Faults) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        if line == "\r\n" {
            break;
        }
        if !lower.starts_with("connection:") {
            head += &line;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let writes = head.starts_with("PUT") || head.starts_with("POST");
    let happens = |left: &AtomicUsize| left.fetch_update(SeqCst, SeqCst, |count| count.checked_sub(1)).is_ok();
    if writes && happens(&faults.refused_writes) {
        client.write_all(b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
        return client.shutdown(Shutdown::Both);
    }
    let mut server = TcpStream::connect(server)?;
    server.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes())?;
    server.write_all(&body)?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    let is_object = head.starts_with("GET") && !head.contains("list-type=");
    let cut_after = faults.cut_after.load(SeqCst);
    if is_object && answer.len() > 4 * cut_after && happens(&faults.cut_reads) {
        answer.truncate(cut_after);
    }
    client.write_all(&answer)?;
    client.shutdown(Shutdown::Both)
}
