//! Who enciphers. The crates that speak HTTP leave the choice to the process and refuse to start without one, even to
//! speak plain text; each room that opens a connection calls [`use_ring`] before it.

use rustls::crypto::{CryptoProvider, ring};

/// Makes ring the process's cryptographic provider; any number of calls do what one does.
pub fn use_ring() {
    if CryptoProvider::get_default().is_none() {
        // An error says that another thread has just done it.
        let _ = ring::default_provider().install_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_can_be_opened_after_any_number_of_calls() {
        use_ring();
        use_ring();
        assert!(reqwest::Client::builder().build().is_ok());
    }
}
