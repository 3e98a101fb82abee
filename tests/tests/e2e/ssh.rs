//! OpenSSH through two brokers by `ProxyCommand`.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rc_tests::{ControllerNode, Mesh, ms};
use tokio::process::{Child, Command};

use crate::support::{pattern, program, skip, stderr, stdout};

/// Bytes of the file that scp copies.
const FILE_BYTES: usize = 200 << 20;

/// Debian's sshd with its own host key, on a free port of loopback.
struct Sshd {
    _child: Child,
    port: u16,
}

fn installed(program: &str) -> bool {
    Path::new(program).exists()
}

async fn keygen(path: &Path) {
    let status = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(path)
        .status()
        .await
        .unwrap();
    assert!(status.success());
}

async fn start_sshd(directory: &Path) -> Sshd {
    // sshd insists on this directory; only root may make it.
    std::fs::create_dir_all("/run/sshd").unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (host, user) = (directory.join("host"), directory.join("user"));
    keygen(&host).await;
    keygen(&user).await;
    std::fs::copy(directory.join("user.pub"), directory.join("authorized_keys")).unwrap();
    let child = Command::new("/usr/sbin/sshd")
        .args(["-D", "-e", "-f", "/dev/null"])
        .args(["-o", &format!("Port={port}"), "-o", "ListenAddress=127.0.0.1"])
        .args(["-o", &format!("HostKey={}", host.display()), "-o", "UsePAM=no", "-o", "StrictModes=no"])
        .args(["-o", &format!("AuthorizedKeysFile={}", directory.join("authorized_keys").display())])
        .args(["-o", "PermitRootLogin=prohibit-password", "-o", "PidFile=none"])
        .args(["-o", "Subsystem=sftp internal-sftp"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let listening =
        rc_tests::eventually(ms(5000), || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    assert!(listening.await, "sshd does not listen");
    Sshd { _child: child, port }
}

fn ssh(program: &str, directory: &Path, alice: &ControllerNode, ticket: &Path) -> Command {
    let proxy = alice.command_line(&["connect", "pc-1", "tcp:ssh"], ticket);
    let mut command = Command::new(program);
    command
        .args(["-F", "/dev/null", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"])
        .args(["-o", "LogLevel=ERROR", "-o", "BatchMode=yes", "-o", &format!("ProxyCommand={proxy}")])
        .arg("-i")
        .arg(directory.join("user"))
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openssh_logs_in_and_copies_two_hundred_megabytes_through_two_brokers() {
    let test = "openssh_logs_in_and_copies_two_hundred_megabytes_through_two_brokers";
    if !installed("/usr/sbin/sshd") || !installed("/usr/bin/ssh") {
        return skip(test, "sshd and ssh are not installed (Debian: openssh-server, openssh-client)");
    }
    if !rustix::process::geteuid().is_root() {
        return skip(test, "sshd needs root");
    }
    let mesh = Mesh::builder(program())
        .region("in", 1)
        .region("us", 1)
        .rtt("in", "us", ms(10))
        .start()
        .await
        .unwrap();
    let directory = mesh.directory().to_owned();
    let sshd = start_sshd(&directory).await;
    let address = format!("127.0.0.1:{}", sshd.port);
    let _target = mesh.target("in", "pc-1").tcp("ssh", address).start(&mesh).await.unwrap();
    let alice = mesh.controller("us", "alice").unwrap();

    let ticket = mesh.ticket(&alice, "pc-1", &["tcp:ssh"]).unwrap();
    let login =
        ssh("ssh", &directory, &alice, &ticket).args(["root@pc-1", "echo $SSH_CONNECTION; exit 3"]).output();
    let login = tokio::time::timeout(Duration::from_secs(60), login).await.unwrap().unwrap();
    assert_eq!(login.status.code(), Some(3), "{}", stderr(&login));
    assert!(stdout(&login).contains(&sshd.port.to_string()), "{}", stdout(&login));

    let ticket = mesh.ticket(&alice, "pc-1", &["tcp:ssh"]).unwrap();
    let terminal = ssh("ssh", &directory, &alice, &ticket).args(["-tt", "root@pc-1", "tty"]).output();
    let terminal = tokio::time::timeout(Duration::from_secs(60), terminal).await.unwrap().unwrap();
    assert!(stdout(&terminal).contains("/dev/pts/"), "{}", stdout(&terminal));

    let (source, copy) = (directory.join("source"), directory.join("copy"));
    std::fs::write(&source, pattern(9, FILE_BYTES)).unwrap();
    let ticket = mesh.ticket(&alice, "pc-1", &["tcp:ssh"]).unwrap();
    let scp = ssh("scp", &directory, &alice, &ticket)
        .arg(&source)
        .arg(format!("root@pc-1:{}", copy.display()))
        .output();
    let scp = tokio::time::timeout(Duration::from_secs(180), scp).await.unwrap().unwrap();
    assert!(scp.status.success(), "{}", stderr(&scp));
    assert!(std::fs::read(&source).unwrap() == std::fs::read(&copy).unwrap(), "the copy differs");
}
