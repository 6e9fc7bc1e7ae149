//! A disk that is really full: a small file system of our own, in a mount namespace.

use std::process::Command;

use super::*;

const FOLDER: &str = "DOSSIER_TEST_DISK";
const NAME: &str = "queue::directory::tests::full_disk::nothing_is_lost_while_the_disk_is_full_and_all_goes_on_after";

/// The same test is parent and child: the child sees the small file system.
#[tokio::test]
async fn nothing_is_lost_while_the_disk_is_full_and_all_goes_on_after() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        return on_a_small_disk(Path::new(&folder)).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs -o size=1m tmpfs \"$DOSSIER_TEST_DISK\" || exit 77; exec \"$@\"";
    let output = Command::new("unshare")
        .args(["-Urm", "sh", "-c", script, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", NAME, "--nocapture"])
        .env(FOLDER, folder.path())
        .output();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output {
        Ok(output) if output.status.success() => {}
        Ok(output) if text(&output.stderr).contains("panicked") => panic!("{}", text(&output.stderr)),
        // Then a_folder_that_is_gone_is_an_error_that_may_pass_and_nothing_is_lost is the weaker form.
        other => eprintln!("no file system of our own can be mounted here: {other:?}"),
    }
}

async fn on_a_small_disk(folder: &Path) {
    let queue = open(folder).await.unwrap();
    let alerts: Vec<_> = (0..10).map(|number| Bytes::from(format!("{{\"id\":{number}}}"))).collect();
    queue.send(&alerts).await.unwrap();
    let mut taken = queue.receive(5).await.unwrap();
    let last = taken.pop().unwrap();
    let settled: Vec<_> = taken.into_iter().map(stored).chain([dead(last)]).collect();

    let filler = folder.join("filler");
    let full = fs::write(&filler, vec![0; 2 << 20]).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    for _ in 0..3 {
        let refused = |error: QueueError| assert!(error.to_string().contains("make room"), "{error}");
        refused(queue.commit(&settled).await.unwrap_err());
        refused(queue.receive(5).await.unwrap_err());
        refused(queue.send(&alerts).await.unwrap_err());
    }
    let depth = queue.depth().await.unwrap();
    assert_eq!((depth.waiting, depth.in_flight, depth.stored, depth.dead), (5, 5, 0, 0));
    assert!(fs::read_dir(folder.join("processed")).unwrap().next().is_none(), "something unfinished was left");

    fs::remove_file(&filler).unwrap();
    let done = queue.commit(&settled).await.unwrap();
    assert_eq!(done, [vec![Committed::Stored; 4], vec![Committed::Dead]].concat());
    let rest = queue.receive(10).await.unwrap();
    assert!(rest.len() == 5 && rest.iter().all(|delivery| !delivery.suspect), "{rest:?}");
}
