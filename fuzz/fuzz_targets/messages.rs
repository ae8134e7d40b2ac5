//! Readers of messages accept any bytes without a panic, and a message that was read can be written and read again.

#![no_main]

use apportion::worker::{
    Failure, Request,
    message::{Notify, NotifyReply, WireResponse},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|json: &[u8]| {
    let _ = Notify::from_json(json);
    if let Ok(reply) = NotifyReply::from_json(json) {
        assert_eq!(NotifyReply::from_json(&reply.to_json()), Ok(reply));
    }
    if let Ok(request) = Request::from_json(json) {
        assert_eq!(Request::from_json(&request.to_json().expect("its arguments are JSON")), Ok(request));
    }
    if let Ok(failure) = Failure::from_json(json) {
        assert_eq!(Failure::from_json(&failure.to_json()), Ok(failure));
    }
    if let Ok(response) = WireResponse::from_json(json).map(WireResponse::decode) {
        if let Ok(response) = response {
            let again = WireResponse::from_json(&response.to_json()).expect("it was read before");
            assert_eq!(again.decode(), Ok(response));
        }
    }
});
