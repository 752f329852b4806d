//! A routing table, as an operator stores it.
#![no_main]

use backlog_bridge::route::{Origin, RouteTable};
use backlog_bridge_fuzz::held;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| held(text.len(), || read(text)));

fn read(text: &str) {
    let name = "routes.toml";
    let Ok(table) = RouteTable::parse(name, text, Some("sources"), Origin::Deployed) else {
        return;
    };
    for route in table.routes() {
        let url = table.space_of(route).url().to_string();
        assert!(url.starts_with("https://"), "{url}");
        assert!(!url.contains('@'), "{url}");
        assert!(!route.bucket().is_empty());
        if let Some(exact) = route.pattern().exact()
            && let Ok(to) = route.destination(table.space_of(route), exact)
        {
            assert!(route.takes(&to.repository, &to.ref_name));
            assert!(!to.key.as_str().is_empty() && to.key.as_str().len() <= 1024);
        }
    }
}
