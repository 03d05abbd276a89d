import CBORCodec
import NitroAttestation

/// CBOR: what is read is written as the same bytes.
let cbor = Harness("cbor", limit: 4096) { bytes in
  do throws(CBORError) {
    check(try CBOR(bytes).encoded == bytes, "two encodings of one value")
  } catch {
    check(!error.description.isEmpty, "no reason")
  }
}

/// Attestation documents in each form in which they are passed on. No input is believed but the one that AWS has signed, and
/// what says the same.
let attestation = Harness("attestation", limit: 10240) { bytes in
  var verifier = AttestationVerifier()
  verifier.time = .document
  do throws(AttestationError) {
    let document = try DocumentText.decode(bytes)
    let verified = try verifier.verify(document)
    check(verified.document.moduleID == "i-0f1cd77d37fd8bcc9-enc018e7aa61e2040ff", "a forged document is believed")
    check(verified.document.timestamp == 1_734_075_478_960, "a changed document is believed")
  } catch {
    check(!error.description.isEmpty, "no reason")
  }
  verifier.allowsUnsigned = true
  verifier.allowsDebug = true
  _ = try? verifier.verify(bytes)
  _ = MeasurementsText.registers(bytes)
}
