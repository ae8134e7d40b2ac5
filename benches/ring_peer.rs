//! Runs this crate on command, for a program in another language that takes turns with it. `scripts/bench-python ring`
//! starts it.
//!
//! Reads the keys from a file, one a line, then commands from the standard input: `extract MEMBERS KERNEL`,
//! `build ..` and `lookup ..` answer with the nanoseconds of this thread and a number to compare;
//! `owners MEMBERS FILE` writes the number of each key's owner, two bytes each.

mod support;

use std::{
    error::Error,
    fs,
    io::{BufRead, Write, stdin, stdout},
};

use apportion::ring::Kernel;

use support::{Time, members, ring};

fn main() -> Result<(), Box<dyn Error>> {
    let Some(file) = std::env::args().nth(1).filter(|arg| !arg.starts_with('-')) else {
        println!("this one takes turns with Python: scripts/bench-python ring");
        return Ok(());
    };
    let keys: Vec<String> = fs::read_to_string(file)?.lines().map(String::from).collect();
    for line in stdin().lock().lines() {
        let line = line?;
        let [command, count, last] = line.split(' ').collect::<Vec<_>>()[..] else {
            return Err(format!("unknown command `{line}`").into());
        };
        let ids = members(count.parse()?);
        let kernel = Kernel::all().into_iter().find(|kernel| format!("{kernel:?}") == last);
        let kernel = kernel.unwrap_or(Kernel::best());
        let start = Time::Cpu.now();
        let found = match command {
            "kernels" => {
                println!("{:?}", Kernel::all());
                continue;
            }
            "extract" => ring(&ids, kernel).extract("agent-3", &keys).len(),
            "build" => ring(&ids, kernel).points(),
            "lookup" => {
                let ring = ring(&ids, kernel);
                keys.iter().filter(|key| ring.owner(*key) == Some("agent-3")).count()
            }
            "owners" => {
                let ring = ring(&ids, kernel);
                let number = |id: &str| ids.iter().position(|other| other == id).unwrap_or(usize::MAX) as u16;
                let owners = ring.each_owner(&keys).map(|(_, owner)| owner.map_or(u16::MAX, number));
                fs::write(last, owners.flat_map(u16::to_le_bytes).collect::<Vec<u8>>())?;
                keys.len()
            }
            _ => return Err(format!("unknown command `{line}`").into()),
        };
        println!("{:.0} {found}", Time::Cpu.now() - start);
        stdout().flush()?;
    }
    Ok(())
}
