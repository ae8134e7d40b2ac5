//! The groups in which the polling agents of ceilometer share the resources that they discover.

use apportion::Config;

/// How an agent joins a group of ceilometer's agents.
#[derive(Debug, clap::Args)]
pub struct CeilometerArgs {
    /// Join ceilometer's polling agents that run with these --polling-namespaces, such as central or compute,central;
    /// the targets are the resources that their discovery finds
    #[arg(
        id = "ceilometer",
        long = "ceilometer",
        value_name = "NAMESPACES",
        value_delimiter = ',',
        requires = "backend",
        conflicts_with = "group"
    )]
    namespaces: Vec<String>,
    /// Their partitioning group prefix
    #[arg(long, value_name = "TEXT", requires = "ceilometer")]
    group_prefix: Option<String>,
    /// The group id of the discovery
    #[arg(long, value_name = "TEXT", requires = "ceilometer", default_value = "global")]
    group_id: String,
}

impl CeilometerArgs {
    /// The settings of such an agent, and its group; `None` without `--ceilometer`.
    pub fn fleet(&self) -> Option<(Config, String)> {
        // Ceilometer leaves the number of partitions to tooz.
        let config = || Config::tooz(32);
        let group = || discovery_group(&self.namespaces, self.group_prefix.as_deref(), &self.group_id);
        (!self.namespaces.is_empty()).then(|| (config(), group()))
    }
}

/// The group in which agents share what a discovery finds.
fn discovery_group(namespaces: &[String], prefix: Option<&str>, group_id: &str) -> String {
    let mut parts: Vec<&str> = namespaces.iter().map(String::as_str).collect();
    parts.sort_unstable();
    parts.extend(prefix.filter(|prefix| !prefix.is_empty()));
    parts.push(group_id);
    parts.join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(namespaces: &[&str], prefix: Option<&str>, group_id: &str) -> String {
        let namespaces: Vec<String> = namespaces.iter().map(|name| (*name).to_owned()).collect();
        discovery_group(&namespaces, prefix, group_id)
    }

    #[test]
    fn a_group_is_named_as_ceilometer_names_it() {
        assert_eq!(group(&["central"], None, "global"), "central-global");
        assert_eq!(group(&["compute", "central"], None, "host-1"), "central-compute-host-1");
        assert_eq!(group(&["compute", "central"], Some("blue"), "global"), "central-compute-blue-global");
        assert_eq!(group(&["ipmi"], Some(""), "LocalNode-h"), "ipmi-LocalNode-h");
    }
}
