//! The operator's command: shows groups, boards and queues, says why a key does not move, and mends what only an operator
//! can mend. `docs/command.md` has each command with its output.
//!
//! It joins no group. What only reads writes nothing; what may do harm asks for `--yes`.

mod arguments;
mod board;
mod doctor;
mod failure;
mod findings;
mod group;
mod outcome;
mod output;
mod queue;
mod simulate;
mod state;
mod store;
mod time;
mod watch;
mod work;

use std::process::ExitCode;

use clap::Parser as _;

use self::{
    arguments::{Arguments, Command},
    failure::Failure,
    outcome::Outcome,
    output::Output,
};

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return not_parsed(&error),
    };
    let output = Output::new(arguments.common.json);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let ended = match runtime {
        Ok(runtime) => {
            let ended = runtime.block_on(run(arguments, output));
            // A read of standard input cannot be interrupted, and the end must not wait for it.
            runtime.shutdown_background();
            ended
        }
        Err(error) => Err(Failure::NotDone(format!("no runtime: {error}"))),
    };
    match ended {
        Ok(Outcome::Fine) => ExitCode::SUCCESS,
        Ok(Outcome::Problem) => ExitCode::from(1),
        Err(Failure::PipeClosed) => ExitCode::SUCCESS,
        Err(failure) => {
            output.error(&failure);
            ExitCode::from(failure.exit())
        }
    }
}

/// Help that was asked for, or arguments that are wrong.
fn not_parsed(error: &clap::Error) -> ExitCode {
    let wants_json = std::env::args_os().take_while(|it| it != "--").any(|it| it == "--json");
    if error.use_stderr() && wants_json {
        Output::new(true).error_as(error.to_string().trim_end(), "usage");
    } else {
        // If that cannot be written, the exit code says it.
        let _ = error.print();
    }
    if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS }
}

async fn run(arguments: Arguments, output: Output) -> Result<Outcome, Failure> {
    let Arguments { common, command } = arguments;
    match command {
        Command::Status(which) => group::status(&common, &which, output).await,
        Command::Members(which) => group::members(&common, &which, output).await,
        Command::Owner(keys) => group::owner(&common, &keys, output).await,
        Command::Why(keys) => group::why(&common, &keys, output).await,
        Command::Watch(watched) => watch::watch(&common, &watched, output).await,
        Command::Simulate(change) => simulate::simulate(&common, &change, output).await,
        Command::Board(board) => board::run(&common, &board, output).await,
        Command::Queue(queue) => queue::run(&common, &queue, output).await,
        Command::Doctor(doctor) => doctor::run(&common, &doctor, output).await,
    }
}
