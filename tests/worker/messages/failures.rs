//! The parts of an error that a failure keeps.

use std::{error::Error, fmt};

use apportion::worker::Failure;
use serde_json::json;

#[derive(Debug)]
struct Layer(&'static str, Option<Box<Layer>>);

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Error for Layer {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.1.as_deref().map(|layer| layer as _)
    }
}

fn layers(names: &[&'static str]) -> Layer {
    let cause = names.get(1).map(|_| Box::new(layers(&names[1..])));
    Layer(names[0], cause)
}

#[test]
fn a_failure_has_the_whole_chain_of_causes() {
    const NAME: &str = concat!(module_path!(), "::Layer");
    let failure = Failure::of(&layers(&["no thumbnail", "no image", "no disk"]));
    assert_eq!(failure.to_string(), format!("{NAME}: no thumbnail, caused by no image, caused by no disk"));
    assert_eq!(failure.exc_type_names(), [NAME, "Exception"]);
    assert_eq!(failure.exc_args(), [json!("no thumbnail")]);
    assert_eq!(failure.causes()[0].exc_type_names(), ["Exception"]);
    assert_eq!(Failure::from_json(&failure.to_json()), Ok(failure));
}

#[test]
fn a_failure_without_a_type_of_its_own_is_an_exception() {
    for name in ["", "Exception"] {
        let failure = Failure::new(name, "boom");
        assert_eq!(failure.exc_type_names(), ["Exception"]);
        assert_eq!(failure.to_string(), "boom");
    }
}

#[test]
fn an_endless_chain_of_causes_is_cut() {
    #[derive(Debug)]
    struct Endless;
    impl fmt::Display for Endless {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("again")
        }
    }
    impl Error for Endless {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(self)
        }
    }
    let failure = Failure::of(&Endless);
    assert_eq!(failure.to_string().matches("caused by").count(), 16);
    assert_eq!(Failure::from_json(&failure.to_json()), Ok(failure));
}

#[test]
fn a_failure_in_a_boxed_error_is_not_changed() {
    let failure = Failure::new("KeyError", "'x'").traceback("line 1").args([json!(7)]);
    let boxed: Box<dyn Error + Send + Sync> = Box::new(failure.clone());
    assert_eq!(Failure::from(boxed), failure);
    let boxed: Box<dyn Error + Send + Sync> = "plain".into();
    assert_eq!(Failure::from(boxed).to_string(), "plain");
}
