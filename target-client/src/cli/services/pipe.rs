//! `pipe:<name>`: one configured command with the channel as its standard input and output.

use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::{ServiceError, Stream};

/// Runs `command` (program and arguments) until it ends; its failure is the channel's reset.
pub(super) async fn run(channel: impl Stream, command: &[String]) -> Result<(), ServiceError> {
    let Some((program, arguments)) = command.split_first() else {
        let source = std::io::Error::from(std::io::ErrorKind::InvalidInput);
        return Err(ServiceError::Start { program: String::new(), source });
    };
    let failed = |source| ServiceError::Start { program: program.clone(), source };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let (Some(mut input), Some(mut output)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(failed(std::io::Error::from(std::io::ErrorKind::BrokenPipe)));
    };
    let (mut from_peer, mut to_peer) = tokio::io::split(channel);
    let feed = async move {
        // A command that stops reading early is its own business; only a lost channel is an error.
        match tokio::io::copy(&mut from_peer, &mut input).await {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    };
    let answer = async move {
        tokio::io::copy(&mut output, &mut to_peer).await?;
        let status = child.wait().await?;
        Ok::<_, std::io::Error>((status, to_peer))
    };
    let (status, mut to_peer) = join_until_answered(feed, answer).await?;
    if !status.success() {
        return Err(ServiceError::Failed { program: program.clone(), status });
    }
    to_peer.shutdown().await?;
    Ok(())
}

/// Runs both sides; done when the answer is, whatever is left to feed. A failed feed ends both.
async fn join_until_answered<T>(
    feed: impl Future<Output = std::io::Result<()>>,
    answer: impl Future<Output = std::io::Result<T>>,
) -> std::io::Result<T> {
    tokio::pin!(feed);
    tokio::pin!(answer);
    tokio::select! {
        answered = &mut answer => answered,
        fed = &mut feed => match fed {
            Ok(()) => answer.await,
            Err(error) => Err(error),
        },
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(ToString::to_string).collect()
    }

    #[tokio::test]
    async fn the_channel_is_the_commands_input_and_output() {
        let (mut near, far) = tokio::io::duplex(1024);
        let service = tokio::spawn(async move { run(far, &words(&["tr", "a-z", "A-Z"])).await });
        near.write_all(b"abc").await.unwrap();
        near.shutdown().await.unwrap();
        let mut back = String::new();
        near.read_to_string(&mut back).await.unwrap();
        assert_eq!(back, "ABC");
        service.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_failing_command_is_an_error() {
        let (_near, far) = tokio::io::duplex(1024);
        let error = run(far, &words(&["false"])).await.unwrap_err();
        assert!(matches!(error, ServiceError::Failed { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_missing_command_is_named() {
        let (_near, far) = tokio::io::duplex(1024);
        let error = run(far, &words(&["/no/such/program"])).await.unwrap_err();
        assert!(error.to_string().starts_with("cannot start /no/such/program: "), "{error}");
    }

    #[tokio::test]
    async fn a_command_may_end_before_its_input_does() {
        let (mut near, far) = tokio::io::duplex(1 << 20);
        let service = tokio::spawn(async move { run(far, &words(&["head", "-c", "2"])).await });
        near.write_all(b"abcdef").await.unwrap();
        let mut back = String::new();
        near.read_to_string(&mut back).await.unwrap();
        assert_eq!(back, "ab");
        service.await.unwrap().unwrap();
    }
}
