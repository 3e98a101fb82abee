//! Runs the simulations by command; see [`rc_tests::simulate`].

fn main() -> std::process::ExitCode {
    rc_tests::simulate::run(std::env::args_os())
}
