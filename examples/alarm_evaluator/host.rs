//! The live metrics of this host.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    time::Instant,
};

use serde::Deserialize;
use sysinfo::{
    Components, CpuRefreshKind, Disks, MINIMUM_CPU_UPDATE_INTERVAL, MemoryRefreshKind, Networks,
    ProcessRefreshKind, ProcessStatus, ProcessesToUpdate, System,
};

use super::alarm::Alarm;
use crate::support::time;

/// Everything that an alarm can be about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum Metric {
    #[serde(rename = "load.1")]
    Load1,
    #[serde(rename = "load.5")]
    Load5,
    #[serde(rename = "load.15")]
    Load15,
    /// The load of the last minute, divided by the number of cores.
    #[serde(rename = "load.per_core")]
    LoadPerCore,
    /// In percent, by core.
    #[serde(rename = "cpu.usage")]
    CpuUsage,
    #[serde(rename = "memory.used_percent")]
    MemoryUsedPercent,
    #[serde(rename = "memory.available_mib")]
    MemoryAvailableMib,
    #[serde(rename = "swap.used_percent")]
    SwapUsedPercent,
    #[serde(rename = "swap.used_mib")]
    SwapUsedMib,
    #[serde(rename = "swap.total_mib")]
    SwapTotalMib,
    /// By mount point, as all of disks.
    #[serde(rename = "disk.used_percent")]
    DiskUsedPercent,
    #[serde(rename = "disk.free_gib")]
    DiskFreeGib,
    #[serde(rename = "disk.read_mib_s")]
    DiskReadMibS,
    #[serde(rename = "disk.written_mib_s")]
    DiskWrittenMibS,
    /// By name, as all of processes; 100 is one core.
    #[serde(rename = "process.cpu_percent")]
    ProcessCpuPercent,
    #[serde(rename = "process.memory_mib")]
    ProcessMemoryMib,
    #[serde(rename = "process.memory_percent")]
    ProcessMemoryPercent,
    /// 1 for a process in that state, 0 for any other.
    #[serde(rename = "process.running")]
    ProcessRunning,
    #[serde(rename = "process.zombie")]
    ProcessZombie,
    #[serde(rename = "process.blocked")]
    ProcessBlocked,
    /// By interface, as all of the network.
    #[serde(rename = "network.received_kib_s")]
    NetworkReceivedKibS,
    #[serde(rename = "network.sent_kib_s")]
    NetworkSentKibS,
    #[serde(rename = "network.received_gib")]
    NetworkReceivedGib,
    #[serde(rename = "network.sent_gib")]
    NetworkSentGib,
    #[serde(rename = "network.errors")]
    NetworkErrors,
    #[serde(rename = "host.uptime_hours")]
    HostUptimeHours,
    /// Open files, in percent of what the system allows. Linux only.
    #[serde(rename = "host.open_files_percent")]
    HostOpenFilesPercent,
    /// By sensor.
    #[serde(rename = "temperature.celsius")]
    TemperatureCelsius,
}

/// For each metric that the host has, its devices with their values.
pub type Metrics = BTreeMap<Metric, Vec<(String, f64)>>;

const KIB: f64 = 1024.0;
const MIB: f64 = KIB * KIB;
const GIB: f64 = MIB * KIB;

/// Samples this host.
#[derive(Debug)]
pub struct Host {
    /// The metrics of the alarms: only these are read.
    wanted: BTreeSet<Metric>,
    system: System,
    disks: Disks,
    networks: Networks,
    sensors: Components,
    last: Instant,
}

impl Host {
    /// Takes a first sample of the metrics of `alarms`. Usages and rates are known from the second sample on.
    pub fn new(alarms: &[Alarm]) -> Host {
        let mut host = Host {
            wanted: alarms.iter().map(|alarm| alarm.metric).collect(),
            system: System::new(),
            disks: Disks::new(),
            networks: Networks::new(),
            sensors: Components::new(),
            last: time::now(),
        };
        host.refresh();
        host
    }

    /// Takes another sample.
    pub fn sample(&mut self) -> Metrics {
        let elapsed = self.last.elapsed();
        self.refresh();
        let mut metrics = Metrics::new();
        self.load(&mut metrics);
        self.memory(&mut metrics);
        self.rest(&mut metrics);
        self.processes(&mut metrics);
        self.disks(&mut metrics, elapsed.as_secs_f64());
        self.networks(&mut metrics, elapsed.as_secs_f64());
        if elapsed < MINIMUM_CPU_UPDATE_INTERVAL {
            // The counters are too coarse for so short a time.
            metrics.retain(|metric, _| !metric.is_rate());
        }
        metrics
    }

    fn wants(&self, metrics: &[Metric]) -> bool {
        metrics.iter().any(|metric| self.wanted.contains(metric))
    }

    fn refresh(&mut self) {
        self.last = time::now();
        self.system.refresh_memory_specifics(MemoryRefreshKind::everything());
        self.system.refresh_cpu_specifics(CpuRefreshKind::nothing().with_cpu_usage());
        if self.wants(&PROCESSES) {
            let what = ProcessRefreshKind::nothing().with_cpu().with_memory().without_tasks();
            self.system.refresh_processes_specifics(ProcessesToUpdate::All, true, what);
        }
        if self.wants(&DISKS) {
            self.disks.refresh(true);
        }
        if self.wants(&NETWORKS) {
            self.networks.refresh(true);
        }
        if self.wants(&[Metric::TemperatureCelsius]) {
            self.sensors.refresh(true);
        }
    }

    fn load(&self, metrics: &mut Metrics) {
        let load = System::load_average();
        let cores = self.system.cpus().len().max(1) as f64;
        for (metric, value) in [
            (Metric::Load1, load.one),
            (Metric::Load5, load.five),
            (Metric::Load15, load.fifteen),
            (Metric::LoadPerCore, load.one / cores),
        ] {
            metrics.insert(metric, total(value));
        }
        let by_core = self.system.cpus().iter().map(|cpu| (cpu.name().into(), cpu.cpu_usage().into()));
        metrics.insert(Metric::CpuUsage, by_core.collect());
    }

    fn memory(&self, metrics: &mut Metrics) {
        let system = &self.system;
        let percent = |used: u64, all: u64| 100.0 * used as f64 / all as f64;
        if system.total_memory() > 0 {
            let used = percent(system.used_memory(), system.total_memory());
            metrics.insert(Metric::MemoryUsedPercent, total(used));
            metrics.insert(Metric::MemoryAvailableMib, total(system.available_memory() as f64 / MIB));
        }
        metrics.insert(Metric::SwapTotalMib, total(system.total_swap() as f64 / MIB));
        if system.total_swap() > 0 {
            let used = percent(system.used_swap(), system.total_swap());
            metrics.insert(Metric::SwapUsedPercent, total(used));
            metrics.insert(Metric::SwapUsedMib, total(system.used_swap() as f64 / MIB));
        }
    }

    fn rest(&self, metrics: &mut Metrics) {
        metrics.insert(Metric::HostUptimeHours, total(System::uptime() as f64 / 3600.0));
        if let Some(percent) = open_files_percent() {
            metrics.insert(Metric::HostOpenFilesPercent, total(percent));
        }
        let temperature = |sensor: &sysinfo::Component| {
            Some((sensor.label().to_owned(), sensor.temperature()?.into()))
                .filter(|(_, it): &(_, f64)| it.is_finite())
        };
        metrics.insert(Metric::TemperatureCelsius, self.sensors.iter().filter_map(temperature).collect());
    }

    fn processes(&self, metrics: &mut Metrics) {
        if !self.wants(&PROCESSES) {
            return;
        }
        let all_memory = self.system.total_memory().max(1) as f64;
        for process in self.system.processes().values() {
            let is = |wanted: &[ProcessStatus]| if wanted.contains(&process.status()) { 1.0 } else { 0.0 };
            let memory = process.memory() as f64;
            for (metric, value) in PROCESSES.into_iter().zip([
                process.cpu_usage().into(),
                memory / MIB,
                100.0 * memory / all_memory,
                is(&[ProcessStatus::Run]),
                is(&[ProcessStatus::Zombie]),
                is(&[ProcessStatus::UninterruptibleDiskSleep]),
            ]) {
                let name = process.name().to_string_lossy().into_owned();
                metrics.entry(metric).or_default().push((name, value));
            }
        }
    }

    fn disks(&self, metrics: &mut Metrics, elapsed: f64) {
        if !self.wants(&DISKS) {
            return;
        }
        let mut disks: Vec<_> = self.disks.iter().filter(|disk| disk.total_space() > 0).collect();
        disks.sort_by_key(|disk| disk.mount_point().as_os_str().len());
        // A disk that is mounted in several places counts once.
        let mut seen = HashSet::new();
        disks.retain(|disk| seen.insert((disk.name(), disk.total_space())));
        for disk in disks {
            let (free, all) = (disk.available_space() as f64, disk.total_space() as f64);
            for (metric, value) in DISKS.into_iter().zip([
                100.0 * (all - free) / all,
                free / GIB,
                disk.usage().read_bytes as f64 / MIB / elapsed,
                disk.usage().written_bytes as f64 / MIB / elapsed,
            ]) {
                let name = disk.mount_point().display().to_string();
                metrics.entry(metric).or_default().push((name, value));
            }
        }
    }

    fn networks(&self, metrics: &mut Metrics, elapsed: f64) {
        if !self.wants(&NETWORKS) {
            return;
        }
        for metric in NETWORKS {
            metrics.insert(metric, Vec::new());
        }
        for (name, network) in &self.networks {
            let errors = network.total_errors_on_received() + network.total_errors_on_transmitted();
            for (metric, value) in NETWORKS.into_iter().zip([
                network.received() as f64 / KIB / elapsed,
                network.transmitted() as f64 / KIB / elapsed,
                network.total_received() as f64 / GIB,
                network.total_transmitted() as f64 / GIB,
                errors as f64,
            ]) {
                metrics.entry(metric).or_default().push((name.clone(), value));
            }
        }
    }
}

const PROCESSES: [Metric; 6] = [
    Metric::ProcessCpuPercent,
    Metric::ProcessMemoryMib,
    Metric::ProcessMemoryPercent,
    Metric::ProcessRunning,
    Metric::ProcessZombie,
    Metric::ProcessBlocked,
];

const DISKS: [Metric; 4] =
    [Metric::DiskUsedPercent, Metric::DiskFreeGib, Metric::DiskReadMibS, Metric::DiskWrittenMibS];

const NETWORKS: [Metric; 5] = [
    Metric::NetworkReceivedKibS,
    Metric::NetworkSentKibS,
    Metric::NetworkReceivedGib,
    Metric::NetworkSentGib,
    Metric::NetworkErrors,
];

impl Metric {
    /// Whether its values are for the time between two samples.
    fn is_rate(self) -> bool {
        use Metric::*;
        matches!(
            self,
            CpuUsage
                | ProcessCpuPercent
                | DiskReadMibS
                | DiskWrittenMibS
                | NetworkReceivedKibS
                | NetworkSentKibS
        )
    }
}

/// The one value of a metric that has no devices.
fn total(value: f64) -> Vec<(String, f64)> {
    vec![("total".into(), value)]
}

fn open_files_percent() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/sys/fs/file-nr").ok()?;
    let mut numbers = text.split_ascii_whitespace().map(str::parse::<f64>);
    let (open, _, most) = (numbers.next()?.ok()?, numbers.next()?, numbers.next()?.ok()?);
    Some(100.0 * open / most)
}
