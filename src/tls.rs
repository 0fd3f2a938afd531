//! The cryptographic provider of the process. The HTTP crates need one even for unencrypted connections, so each module that
//! opens a connection calls [`use_ring`] first.

use rustls::crypto::{CryptoProvider, ring};

/// Makes ring the process's cryptographic provider. Further calls have no effect.
pub fn use_ring() {
    if CryptoProvider::get_default().is_none() {
        // An error means that another thread has just installed it.
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
