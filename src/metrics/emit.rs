//! Sends values to the recorder; does nothing without the feature `metrics`. The only file that names that crate.

#[cfg(feature = "metrics")]
mod recorded {
    use std::time::Duration;

    use metrics::{Key, Label, Level, Metadata, Unit, with_recorder};

    use crate::metrics::{Kind, Metric};

    static METADATA: Metadata<'static> = Metadata::new("apportion", Level::INFO, Some("apportion"));

    impl Metric {
        fn key(&self, values: &[&str]) -> Key {
            debug_assert_eq!(self.labels.len(), values.len(), "{}", self.name);
            let labels = self.labels.iter().zip(values);
            let labels: Vec<_> =
                labels.map(|(label, value)| Label::new(*label, (*value).to_owned())).collect();
            Key::from_parts(self.name, labels)
        }

        /// Counts one. `values` are those of the labels.
        pub(crate) fn add(&self, values: &[&str]) {
            let key = self.key(values);
            with_recorder(|recorder| recorder.register_counter(&key, &METADATA).increment(1));
        }

        /// Sets a gauge.
        pub(crate) fn set(&self, values: &[&str], value: f64) {
            let key = self.key(values);
            with_recorder(|recorder| recorder.register_gauge(&key, &METADATA).set(value));
        }

        /// Notes one value of a histogram.
        pub(crate) fn record(&self, values: &[&str], took: Duration) {
            let key = self.key(values);
            with_recorder(|recorder| recorder.register_histogram(&key, &METADATA).record(took.as_secs_f64()));
        }

        pub(crate) fn describe(&self) {
            let unit = (self.unit == "seconds").then_some(Unit::Seconds);
            with_recorder(|recorder| match self.kind {
                Kind::Counter => recorder.describe_counter(self.name.into(), unit, self.help.into()),
                Kind::Gauge => recorder.describe_gauge(self.name.into(), unit, self.help.into()),
                Kind::Histogram => recorder.describe_histogram(self.name.into(), unit, self.help.into()),
            });
        }
    }
}

#[cfg(not(feature = "metrics"))]
mod nothing {
    use std::time::Duration;

    use crate::metrics::Metric;

    impl Metric {
        #[inline]
        pub(crate) fn add(&self, _values: &[&str]) {}

        #[inline]
        pub(crate) fn set(&self, _values: &[&str], _value: f64) {}

        #[inline]
        pub(crate) fn record(&self, _values: &[&str], _took: Duration) {}

        #[inline]
        pub(crate) fn describe(&self) {}
    }
}
