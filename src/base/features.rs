//! What this build can do, in the words of Netdata's `buildinfo`: the one table that the command line and
//! `/api/v1/info` both read. A feature is `true` here once it works, not before.

/// One line of `buildinfo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    pub group: Group,
    pub name: &'static str,
    /// Its key in `buildinfojson`.
    pub key: &'static str,
    pub built: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    Features,
    Libraries,
    Plugins,
    Exporters,
    Debug,
}

impl Group {
    pub const ALL: [Group; 5] =
        [Group::Features, Group::Libraries, Group::Plugins, Group::Exporters, Group::Debug];

    pub fn title(self) -> &'static str {
        match self {
            Group::Features => "Features",
            Group::Libraries => "Libraries",
            Group::Plugins => "Plugins",
            Group::Exporters => "Exporters",
            Group::Debug => "Debug/Developer Features",
        }
    }

    pub fn key(self) -> &'static str {
        match self {
            Group::Features => "features",
            Group::Libraries => "libs",
            Group::Plugins => "plugins",
            Group::Exporters => "exporters",
            Group::Debug => "debug-n-devel",
        }
    }
}

const fn feature(group: Group, name: &'static str, key: &'static str, built: bool) -> Feature {
    Feature { group, name, key, built }
}

pub const FEATURES: &[Feature] = &[
    feature(Group::Features, "dbengine", "dbengine", true),
    feature(Group::Features, "Native HTTPS", "native-https", true),
    feature(Group::Features, "Netdata Cloud", "cloud", false),
    feature(Group::Features, "ACLK", "aclk", false),
    feature(Group::Features, "TLS Host Verification", "tls-host-verify", true),
    feature(Group::Features, "Machine Learning", "machine-learning", false),
    feature(Group::Features, "Stream Compression", "stream-compression", true),
    feature(Group::Libraries, "protobuf", "protobuf", false),
    feature(Group::Libraries, "jemalloc", "jemalloc", false),
    feature(Group::Libraries, "JSON-C", "jsonc", false),
    feature(Group::Libraries, "libcap", "libcap", false),
    feature(Group::Libraries, "libcrypto", "libcrypto", true),
    feature(Group::Libraries, "libm", "libm", true),
    feature(Group::Libraries, "tcalloc", "tcmalloc", false),
    feature(Group::Libraries, "zlib", "zlib", true),
    feature(Group::Plugins, "apps", "apps", false),
    feature(Group::Plugins, "cgroup Network Tracking", "cgroup-net", false),
    feature(Group::Plugins, "CUPS", "cups", false),
    feature(Group::Plugins, "EBPF", "ebpf", false),
    feature(Group::Plugins, "IPMI", "ipmi", false),
    feature(Group::Plugins, "NFACCT", "nfacct", false),
    feature(Group::Plugins, "perf", "perf", false),
    feature(Group::Plugins, "slabinfo", "slabinfo", false),
    feature(Group::Plugins, "Xen", "xen", false),
    feature(Group::Plugins, "Xen VBD Error Tracking", "xen-vbd-error", false),
    feature(Group::Exporters, "AWS Kinesis", "kinesis", false),
    feature(Group::Exporters, "GCP PubSub", "pubsub", false),
    feature(Group::Exporters, "MongoDB", "mongodb", false),
    feature(Group::Exporters, "Prometheus Remote Write", "prom-remote-write", false),
    feature(Group::Debug, "Trace Allocations", "trace-allocations", false),
];

/// Those that work, joined as `/api/v1/info` shows them.
pub fn built() -> String {
    let names: Vec<_> = FEATURES.iter().filter(|f| f.built).map(|f| f.name).collect();
    names.join("|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_names_only_what_is_built() {
        assert_eq!(built().split('|').count(), FEATURES.iter().filter(|f| f.built).count());
        assert!(!built().contains("Cloud"));
    }
}
