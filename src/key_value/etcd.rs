//! A store in etcd, through the JSON form of its v3 API (`/v3/kv/…`, part of every etcd since 3.4), which encodes keys and
//! values as base64 and integers as strings.

use std::fmt;
use std::thread::sleep;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use reqwest::blocking::Client;
use serde::Deserialize;
use serde_json::{Value, json};

use super::KeyValueStore;
use super::error::{KeyValueError, Result};
use crate::tls::use_ring;

/// The time limit of one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Pauses before a request is repeated: a cluster that elects a new leader does not answer for about a second. All requests
/// here are idempotent.
const RETRY_PAUSES: [Duration; 3] = [Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(3)];

/// Values in etcd, below a prefix.
#[derive(Debug)]
pub struct Etcd {
    client: Client,
    /// `host:port`
    endpoint: String,
    prefix: String,
}

/// The response to `/v3/kv/range`.
#[derive(Deserialize)]
struct RangeResponse {
    #[serde(default)]
    kvs: Vec<KeyValue>,
}

#[derive(Deserialize)]
struct KeyValue {
    /// Absent if empty.
    #[serde(default)]
    value: String,
}

impl Etcd {
    /// Returns the store at `address`, `host:port` or `host:port/prefix` (default prefix `lambert`). It sends no request.
    ///
    /// # Errors
    /// If the address is not valid.
    pub fn new(address: &str) -> Result<Etcd> {
        let (endpoint, prefix) = address.split_once('/').unwrap_or((address, ""));
        let port = endpoint.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
        let Some(Ok(_)) = port else { return Err(KeyValueError::Address { address: format!("etcd://{address}") }) };
        let prefix = prefix.trim_matches('/');
        use_ring();
        let client = Client::builder().timeout(REQUEST_TIMEOUT).no_proxy().build();
        Ok(Etcd {
            client: client.map_err(|error| etcd_error(endpoint, chain(&error)))?,
            endpoint: endpoint.to_owned(),
            prefix: if prefix.is_empty() { "lambert".to_owned() } else { prefix.to_owned() },
        })
    }

    fn key(&self, key: &str) -> String {
        format!("{}/{key}", self.prefix)
    }

    /// Sends a request, and repeats it if the server cannot be reached or is not ready.
    fn call(&self, method: &str, body: &Value) -> Result<Value> {
        let url = format!("http://{}/v3/kv/{method}", self.endpoint);
        let mut pauses = RETRY_PAUSES.into_iter();
        loop {
            let response = self.client.post(&url).json(body).send();
            let (fault, transient) = match response {
                Ok(response) if response.status().is_success() => {
                    return response.json().map_err(|error| etcd_error(&self.endpoint, chain(&error)));
                }
                Ok(response) => {
                    let (status, text) = (response.status(), response.text().unwrap_or_default());
                    (format!("returned status {status}: {}", text.trim()), status.is_server_error())
                }
                Err(error) => (format!("cannot be reached: {}", chain(&error)), true),
            };
            match pauses.next().filter(|_| transient) {
                Some(pause) => sleep(pause),
                None => return Err(etcd_error(&self.endpoint, fault)),
            }
        }
    }
}

impl KeyValueStore for Etcd {
    fn put(&self, key: &str, value: &[u8]) -> Result<()> {
        let body = json!({ "key": BASE64.encode(self.key(key)), "value": BASE64.encode(value) });
        self.call("put", &body).map(drop)
    }

    fn try_get(&self, key: &str) -> Result<Option<Vec<u8>>> {
        let response = self.call("range", &json!({ "key": BASE64.encode(self.key(key)) }))?;
        let invalid =
            |error: &dyn fmt::Display| etcd_error(&self.endpoint, format!("returned an invalid response: {error}"));
        let response: RangeResponse = serde_json::from_value(response).map_err(|error| invalid(&error))?;
        let decode = |found: &KeyValue| BASE64.decode(&found.value).map_err(|error| invalid(&error));
        response.kvs.first().map(decode).transpose()
    }

    fn remove_all(&self, folder: &str) -> Result<()> {
        let first = self.key(folder) + "/";
        // The range ends before the first key without this prefix: `0` follows `/` in ASCII.
        let end = self.key(folder) + "0";
        let body = json!({ "key": BASE64.encode(first), "range_end": BASE64.encode(end) });
        self.call("deleterange", &body).map(drop)
    }
}

impl fmt::Display for Etcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "etcd://{}/{}", self.endpoint, self.prefix)
    }
}

fn etcd_error(endpoint: &str, fault: String) -> KeyValueError {
    KeyValueError::Etcd { endpoint: endpoint.to_owned(), fault }
}

/// Joins an error with its causes, where reqwest puts the reason.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text += &format!(": {next}");
        cause = next.source();
    }
    text
}
