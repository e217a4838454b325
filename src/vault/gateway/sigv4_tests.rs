//! The examples that AWS publishes, what other signers write, and what must not be believed.

use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;

use super::*;

const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const HOST: &str = "examplebucket.s3.amazonaws.com";

fn keys() -> GatewayKeys {
    GatewayKeys::fixed("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
}

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    pairs.iter().map(|(n, v)| (n.parse::<HeaderName>().unwrap(), HeaderValue::from_str(v).unwrap())).collect()
}

fn at(text: &str) -> Timestamp {
    instant(text).unwrap()
}

fn authorization(signed: &str, signature: &str) -> String {
    format!(
        "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,SignedHeaders={signed},Signature={signature}"
    )
}

/// One of AWS's examples, of 24 May 2013.
fn example(method: &str, path: &str, query: &str, more: &[(&str, &str)], signed: &str, signature: &str) -> Result<Payload, S3Error> {
    let mut all = headers(&[("host", HOST), ("x-amz-date", "20130524T000000Z"), ("authorization", &authorization(signed, signature))]);
    all.extend(headers(more));
    check(Signed { method, path, query, headers: &all }, &keys(), at("20130524T000100Z"))
}

#[test]
fn awss_own_examples() {
    let get = [("range", "bytes=0-9"), ("x-amz-content-sha256", EMPTY)];
    let signed = "host;range;x-amz-content-sha256;x-amz-date";
    let signature = "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41";
    assert!(example("GET", "/test.txt", "", &get, signed, signature).is_ok());
    // one thing changed, each time
    let wrong = Err(S3Error::SignatureDoesNotMatch);
    assert_eq!(example("HEAD", "/test.txt", "", &get, signed, signature), wrong);
    assert_eq!(example("GET", "/text.txt", "", &get, signed, signature), wrong);
    assert_eq!(example("GET", "/test.txt", "versionId=1", &get, signed, signature), wrong);
    assert_eq!(example("GET", "/test.txt", "", &[("range", "bytes=0-8"), get[1]], signed, signature), wrong);
    assert_eq!(example("GET", "/test.txt", "", &get[1..], signed, signature), wrong);
    assert_eq!(example("GET", "/test.txt", "", &[get[0], ("x-amz-content-sha256", UNSIGNED)], signed, signature), wrong);
    assert_eq!(example("GET", "/test.txt", "", &get, signed, &signature.replace('f', "0")), wrong);
    assert_eq!(example("GET", "/test.txt", "", &get, "range;x-amz-content-sha256;x-amz-date", signature), Err(S3Error::AccessDenied));

    let put = [
        ("date", "Fri, 24 May 2013 00:00:00 GMT"),
        ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
        ("x-amz-content-sha256", "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072"),
    ];
    let signed = "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class";
    let signature = "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd";
    assert!(matches!(example("PUT", "/test%24file.text", "", &put, signed, signature), Ok(Payload::Digest(_))));
    // the same key, written otherwise
    assert!(example("PUT", "/test$file.text", "", &put, signed, signature).is_ok());

    let none = [("x-amz-content-sha256", EMPTY)];
    let signed = "host;x-amz-content-sha256;x-amz-date";
    let lifecycle = "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543";
    for query in ["lifecycle", "lifecycle="] {
        assert!(example("GET", "/", query, &none, signed, lifecycle).is_ok());
    }
    let list = "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7";
    for query in ["max-keys=2&prefix=J", "prefix=J&max-keys=2"] {
        assert!(example("GET", "/", query, &none, signed, list).is_ok());
    }
}

#[test]
fn awss_example_of_a_presigned_url() {
    const SIGNATURE: &str = "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404";
    let query = |life: &str, signature: &str| {
        format!(
            "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request\
             &X-Amz-Date=20130524T000000Z&X-Amz-Expires={life}&X-Amz-SignedHeaders=host&X-Amz-Signature={signature}"
        )
    };
    let headers = headers(&[("host", HOST)]);
    let ask = |query: &str, now: &str| check(Signed { method: "GET", path: "/test.txt", query, headers: &headers }, &keys(), at(now));
    let good = query("86400", SIGNATURE);
    assert_eq!(ask(&good, "20130524T235900Z"), Ok(Payload::Unsigned));
    assert_eq!(ask(&good, "20130525T000001Z"), Err(S3Error::Expired));
    assert_eq!(ask(&good, "20130522T000000Z"), Err(S3Error::RequestTimeTooSkewed));
    assert_eq!(ask(&query("86401", SIGNATURE), "20130524T000100Z"), Err(S3Error::SignatureDoesNotMatch));
    assert_eq!(ask(&query("604801", SIGNATURE), "20130524T000100Z"), Err(S3Error::AuthorizationQueryParametersError));
    assert_eq!(ask(&format!("{good}&versionId=2"), "20130524T000100Z"), Err(S3Error::SignatureDoesNotMatch));
    assert_eq!(ask(&format!("{good}&X-Amz-Expires=9"), "20130524T000100Z"), Err(S3Error::AuthorizationQueryParametersError));
    assert_eq!(ask("X-Amz-Signature=x", "20130524T000100Z"), Err(S3Error::AuthorizationQueryParametersError));
    assert_eq!(ask("", "20130524T000100Z"), Err(S3Error::AccessDenied));
}

#[test]
fn awss_example_of_signed_chunks() {
    let mut all = headers(&[
        ("host", "s3.amazonaws.com"),
        ("x-amz-date", "20130524T000000Z"),
        ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
        ("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"),
        ("content-encoding", "aws-chunked"),
        ("x-amz-decoded-content-length", "66560"),
        ("content-length", "66824"),
    ]);
    let signed = "content-encoding;content-length;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;x-amz-storage-class";
    let authorization = authorization(signed, "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9");
    all.insert("authorization", authorization.parse().unwrap());
    let request = Signed { method: "PUT", path: "/examplebucket/chunkObject.txt", query: "", headers: &all };
    let Ok(Payload::Chunked(Chunked { seed: Some(mut seed) })) = check(request, &keys(), at("20130524T000000Z")) else {
        panic!("the seed is refused")
    };
    let body = vec![b'a'; 66_560];
    assert!(seed.clone().accepts(&body[..65_536], "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648"));
    assert!(!seed.clone().accepts(&body[..65_535], "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648"));
    for (chunk, signature) in [
        (&body[..65_536], "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648"),
        (&body[65_536..], "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497"),
        (&[][..], "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9"),
    ] {
        assert!(seed.accepts(chunk, signature));
    }
}

#[test]
fn claims_that_are_none() {
    let with = |value: &str| {
        let all = headers(&[("host", HOST), ("x-amz-date", "20130524T000000Z"), ("authorization", value)]);
        check(Signed { method: "GET", path: "/", query: "", headers: &all }, &keys(), at("20130524T000000Z"))
    };
    assert_eq!(with("AWS AKIAIOSFODNN7EXAMPLE:frJIUN8DYpKDtOLCwo//yllqDzg="), Err(S3Error::UnsupportedSignature));
    assert_eq!(with("Basic dTpw"), Err(S3Error::UnsupportedSignature));
    assert_eq!(with("AWS4-HMAC-SHA256"), Err(S3Error::AuthorizationHeaderMalformed));
    let scope = |scope: &str| format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host;x-amz-date, Signature=00");
    assert_eq!(with(&scope("OTHER/20130524/us-east-1/s3/aws4_request")), Err(S3Error::InvalidAccessKeyId));
    assert_eq!(with(&scope("AKIAIOSFODNN7EXAMPLE/20130525/us-east-1/s3/aws4_request")), Err(S3Error::AuthorizationHeaderMalformed));
    assert_eq!(with(&scope("AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3")), Err(S3Error::AuthorizationHeaderMalformed));
    assert_eq!(with(&scope("AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request")), Err(S3Error::SignatureDoesNotMatch));
}

#[test]
fn keys_are_fresh_and_silent() {
    let (a, b) = (GatewayKeys::generate().unwrap(), GatewayKeys::generate().unwrap());
    assert_ne!(a.access_key, b.access_key);
    assert_ne!(a.secret_key(), b.secret_key());
    assert_eq!((a.access_key.len(), a.secret_key().len()), (20, 40));
    assert_eq!(format!("{a:?}"), "GatewayKeys");
}

fn signed_by_object_store(url: &str, range: Option<&str>) -> (http::request::Parts, GatewayKeys) {
    use object_store::aws::{AwsAuthorizer, AwsCredential};
    let keys = GatewayKeys::generate().unwrap();
    let credential = AwsCredential { key_id: keys.access_key.clone(), secret_key: keys.secret_key().to_owned(), token: None };
    let mut request = http::Request::builder().uri(url).body(object_store::client::HttpRequestBody::empty()).unwrap();
    if let Some(range) = range {
        request.headers_mut().insert("range", HeaderValue::from_str(range).unwrap());
    }
    AwsAuthorizer::new(&credential, "s3", "eu-west-7").try_authorize(&mut request, None).unwrap();
    let mut parts = request.into_parts().0;
    if !parts.headers.contains_key("host") {
        parts.headers.insert("host", HeaderValue::from_str(parts.uri.authority().unwrap().as_str()).unwrap());
    }
    (parts, keys)
}

fn believed(parts: &http::request::Parts, keys: &GatewayKeys) -> Result<Payload, S3Error> {
    let now = at(parts.headers["x-amz-date"].to_str().unwrap());
    let query = parts.uri.query().unwrap_or_default();
    check(Signed { method: parts.method.as_str(), path: parts.uri.path(), query, headers: &parts.headers }, keys, now)
}

proptest! {
    #[test]
    fn whatever_object_store_signs_is_believed(key in "[ -~é]{1,30}", prefix in "[ -~é]{0,20}") {
        // these the client resolves before it sends anything
        prop_assume!(key.split('/').all(|segment| !matches!(segment, "" | "." | "..")));
        let key = uri::encode(&key, true);
        let (parts, keys) = signed_by_object_store(&format!("http://h:9/b/{key}?prefix={}", uri::encode(&prefix, false)), Some("bytes=0-1"));
        prop_assert!(believed(&parts, &keys).is_ok());
        let (mut parts, keys) = signed_by_object_store(&format!("http://h:9/b/{key}"), None);
        prop_assert!(believed(&parts, &keys).is_ok());
        parts.uri = format!("http://h:9/b/{key}x").parse().unwrap();
        prop_assert!(believed(&parts, &keys).is_err());
    }

    #[test]
    fn a_canonical_query_is_its_own_canonical_form(query in "[a-c%=&+0-9]{0,20}") {
        let once = canonical_query(&query);
        prop_assert_eq!(canonical_query(&once), once);
    }

    #[test]
    fn no_claim_makes_it_panic(value in "(AWS4-HMAC-SHA256 )?[ -~]{0,60}", query in "(X-Amz-Signature=)?[ -~]{0,40}") {
        let all = headers(&[("host", HOST), ("x-amz-date", "20130524T000000Z"), ("authorization", &value)]);
        let _ = check(Signed { method: "GET", path: "/", query: &query, headers: &all }, &keys(), at("20130524T000000Z"));
        let _ = check(Signed { method: "GET", path: "/", query: &query, headers: &headers(&[("host", HOST)]) }, &keys(), at("20130524T000000Z"));
    }
}
