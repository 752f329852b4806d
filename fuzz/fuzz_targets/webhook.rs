//! A webhook's body, and the event of API Gateway around one.
#![no_main]

use backlog_bridge::{
    receive::Envelope,
    webhook::{ParseError, Webhook},
};
use backlog_bridge_fuzz::held;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| held(body.len(), || read(body)));

fn read(body: &[u8]) {
    match Webhook::from_body(body) {
        Ok(Webhook::Push(push)) => {
            let name = push.repository.as_str();
            assert_eq!(name.matches('/').count(), 1, "{name}");
            assert!(!name.split('/').any(|part| part.is_empty() || part == ".."));
            assert!(push.ref_name.as_str().starts_with("refs/"));
            assert!(!push.ref_name.as_str().contains(".."));
            assert!(push.commits.len() <= 1_000);
        }
        Ok(Webhook::TestDelivery | Webhook::OtherType(_)) => {}
        // No error repeats what a body says.
        Err(error @ ParseError::Json { .. }) => assert!(error.to_string().len() < 100),
        Err(error) => assert!(error.to_string().len() < 300),
    }
    if let Ok(event) = serde_json::from_slice::<serde_json::Value>(body) {
        let envelope = Envelope::from(event);
        let _ = (envelope.request().path.len(), envelope.body());
    }
}
