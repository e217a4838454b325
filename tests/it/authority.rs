//! A timestamp authority of one's own: openssl's, behind a few lines of HTTP.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

/// What it answers.
#[derive(Clone)]
pub enum Answer {
    /// Its timestamp.
    Honest,
    /// These bytes.
    Bytes(Vec<u8>),
    /// This HTTP status.
    Status(u16),
}

pub struct Authority {
    directory: Arc<tempfile::TempDir>,
    port: u16,
    answer: Arc<Mutex<Answer>>,
}

impl Authority {
    /// With a P-256 key.
    pub fn new() -> Self {
        Self::with("ec -pkeyopt ec_paramgen_curve:P-256", "sha256")
    }

    /// With a key of this algorithm, as `openssl genpkey` has it, signing over this digest.
    pub fn with(algorithm: &str, digest: &str) -> Self {
        let directory = Arc::new(tempfile::tempdir().unwrap());
        let script = format!(
            r#"
            key() {{ openssl genpkey -quiet -algorithm {algorithm} -out $1.key 2>/dev/null || openssl genpkey -algorithm {algorithm} -out $1.key; }}
            signed() {{ openssl req -new -key $1.key -subj "/CN=$1" | openssl x509 -req -CA $2.pem -CAkey $2.key -CAcreateserial -days 9 -extfile <(printf "$3") -out $1.pem; }}
            key root; key between; key tsa; key web
            openssl req -x509 -key root.key -subj /CN=root -days 9 -out root.pem -addext keyUsage=critical,keyCertSign
            signed between root "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\nsubjectKeyIdentifier=hash\n"
            signed tsa between "basicConstraints=CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=critical,timeStamping\n"
            signed web between "basicConstraints=CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth\n"
            echo 01 > serial
            cat > ts.conf <<END
[tsa]
default_tsa = one
[one]
serial = serial
signer_cert = tsa.pem
certs = between.pem
signer_key = tsa.key
signer_digest = {digest}
default_policy = 1.2.3.4.1
digests = sha256
accuracy = secs:1
ordering = yes
tsa_name = yes
ess_cert_id_alg = {digest}
END
            "#
        );
        shell(directory.path(), &script);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let answer = Arc::new(Mutex::new(Answer::Honest));
        let (theirs, place) = (Arc::clone(&answer), Arc::clone(&directory));
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let answer = theirs.lock().unwrap().clone();
                serve(connection.unwrap(), place.path(), &answer);
            }
        });
        Self { directory, port, answer }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/tsr", self.port)
    }

    /// Who vouches for it.
    pub fn ca(&self) -> PathBuf {
        self.directory.path().join("root.pem")
    }

    pub fn set(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    /// Its answer to a request.
    pub fn answer(&self, request: &[u8]) -> Vec<u8> {
        reply(self.directory.path(), request)
    }

    /// The same answer, signed by another certificate of the same CA, which is not made for that.
    pub fn answer_signed_for_web(&self, request: &[u8]) -> Vec<u8> {
        let directory = self.directory.path();
        fs::write(directory.join("answer"), self.answer(request)).unwrap();
        shell(
            directory,
            "openssl ts -reply -in answer -token_out -out token
             openssl cms -verify -in token -inform DER -noverify -binary -out info 2>/dev/null
             openssl cms -sign -in info -binary -nodetach -econtent_type id-smime-ct-TSTInfo -cades -md sha256 \
                 -signer web.pem -inkey web.key -certfile between.pem -outform DER -out web.token",
        );
        let token = fs::read(directory.join("web.token")).unwrap();
        sequence(&[&[0x30, 3, 2, 1, 0], token.as_slice()].concat())
    }

    /// Whether `openssl ts` believes an answer.
    pub fn openssl_believes(&self, answer: &Path, data: &Path) -> bool {
        let mut openssl = Command::new("openssl");
        openssl.args(["ts", "-verify", "-data"]).arg(data).arg("-in").arg(answer).arg("-CAfile").arg(self.ca());
        openssl.output().unwrap().status.success()
    }
}

fn sequence(content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    [&[0x30, 0x82, length[0], length[1]], content].concat()
}

fn shell(directory: &Path, script: &str) {
    let output = Command::new("bash").args(["-euo", "pipefail", "-c", script]).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn reply(directory: &Path, request: &[u8]) -> Vec<u8> {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("query"), request).unwrap();
    let mut openssl = Command::new("openssl");
    openssl.args(["ts", "-reply", "-config", "ts.conf", "-queryfile"]).arg(place.path().join("query"));
    let made = openssl.arg("-out").arg(place.path().join("answer")).current_dir(directory).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    fs::read(place.path().join("answer")).unwrap()
}

fn serve(mut connection: TcpStream, directory: &Path, answer: &Answer) {
    let mut received = Vec::new();
    let mut buffer = [0; 4096];
    let body = loop {
        let count = connection.read(&mut buffer).unwrap();
        received.extend_from_slice(&buffer[..count]);
        let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&received[..end]).to_lowercase();
        assert!(head.starts_with("post /tsr") && head.contains("content-type: application/timestamp-query"), "{head}");
        let length: usize = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().trim().parse().unwrap();
        if received.len() >= end + 4 + length {
            break received[end + 4..].to_vec();
        }
    };
    let (status, bytes) = match answer {
        Answer::Honest => (200, reply(directory, &body)),
        Answer::Bytes(bytes) => (200, bytes.clone()),
        Answer::Status(status) => (*status, Vec::new()),
    };
    let head = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/timestamp-reply\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        bytes.len()
    );
    connection.write_all(&[head.as_bytes(), &bytes].concat()).unwrap();
}
