import CDecompress
import Foundation
import XCTest

@testable import Imaging

/// An EIF that Nitro refuses, or that measures to something else than its builder was told, is worth nothing.
final class EIFTests: XCTestCase {
  private func ramdisk(_ text: String) throws -> CpioArchive {
    let tree = FileTree()
    try tree.insert("file", FileNode(.file(.bytes(Array(text.utf8))), permissions: 0o644))
    return try CpioArchive(tree)
  }

  private func build(_ scratch: Scratch, signer: ImageSigner? = nil, name: String = "a.eif", ramdisks: Int = 2) throws
    -> (String, Measurements)
  {
    let path = scratch.path + "/" + name
    let output = try AtomicOutput(path: path)
    let metadata = ImageMetadata(name: "n\"ame", version: "1", buildTime: 0, toolVersion: "0", kernelVersion: "6.1")
    let contents = EIFContents(
      kernel: try scratch.slice("kernel", kernelImage()), architecture: .x86_64, commandLine: "console=ttyS0 a=b",
      metadata: metadata.json(docker: nil), ramdisks: try (0..<ramdisks).map { try ramdisk("disk \($0)") },
      signer: signer)
    let measurements = try EIFWriter.write(contents, to: output) { _ in }
    try output.commit()
    return (path, measurements)
  }

  private func signer(_ scratch: Scratch, curve: String = "secp384r1") throws -> ImageSigner {
    try shell(
      """
      cd $1 && openssl ecparam -name \(curve) -genkey -out key.pem 2>&1 &&
      openssl req -new -x509 -key key.pem -sha384 -days 30 -subj '/C=DE/O=Tombolo/CN=signer' -out cert.pem 2>&1
      """, scratch.path)
    return try ImageSigner(certificatePath: scratch.path + "/cert.pem", keyPath: scratch.path + "/key.pem")
  }

  /// The format once more, in another language, from its description alone.
  private let independent = """
    import sys, struct, hashlib, zlib, json
    b = open(sys.argv[1], 'rb').read()
    magic, version, flags, mem, cpus, res, n = struct.unpack('>4sHHQQHH', b[:28])
    assert magic == b'.eif' and version == 4 and flags == 0 and res == 0, (magic, version, flags)
    off = struct.unpack('>32Q', b[28:284]); size = struct.unpack('>32Q', b[284:540])
    unused, crc = struct.unpack('>II', b[540:548])
    assert unused == 0 and crc == zlib.crc32(b[548:], zlib.crc32(b[:544])), 'crc'
    assert all(x == 0 for x in off[n:] + size[n:])
    parts, kinds, at = [], [], 548
    for o, s in zip(off[:n], size[:n]):
        t, f, s2 = struct.unpack('>HHQ', b[o:o+12]); assert o == at and f == 0 and s == s2
        kinds.append(t); parts.append(b[o+12:o+12+s]); at = o + 12 + s
    assert at == len(b)
    pcr = lambda x: hashlib.sha384(bytes(48) + hashlib.sha384(x).digest()).hexdigest()
    disks = [p for t, p in zip(kinds, parts) if t == 3]
    k, c = parts[kinds.index(1)], parts[kinds.index(2)]
    out = {'kinds': kinds, 'cmdline': c.decode(), 'meta': json.loads(parts[kinds.index(5)]),
           'pcrs': [pcr(k + c + b''.join(disks)), pcr(k + c + disks[0]), pcr(b''.join(disks[1:]))]}
    """

  func testMeasurementsAndChecksumAgreeWithAnIndependentComputation() throws {
    let scratch = try Scratch()
    for ramdisks in [1, 2, 3] {
      let (path, measurements) = try build(scratch, ramdisks: ramdisks)
      let script = try scratch.write("check.py", independent + "\nprint(json.dumps(out))")
      let output = try shell("python3 $1 $2", script, path)
      let found = try XCTUnwrap(try JSONSerialization.jsonObject(with: Data(output.utf8)) as? [String: Any])
      XCTAssertEqual(found["pcrs"] as? [String], measurements.named.map(\.hex))
      XCTAssertEqual(found["kinds"] as? [Int], [1, 2, 5] + [Int](repeating: 3, count: ramdisks))
      XCTAssertEqual(found["cmdline"] as? String, "console=ttyS0 a=b")
      let metadata = try XCTUnwrap(found["meta"] as? [String: Any])
      XCTAssertEqual(
        Set(metadata.keys), ["ImageName", "ImageVersion", "BuildMetadata", "DockerInfo", "CustomMetadata"])
      XCTAssertEqual(metadata["ImageName"] as? String, "n\"ame")
      let build = try XCTUnwrap(metadata["BuildMetadata"] as? [String: String])
      XCTAssertEqual(
        Set(build.keys), ["BuildTime", "BuildTool", "BuildToolVersion", "OperatingSystem", "KernelVersion"])
      XCTAssertEqual(build["BuildTime"], "1970-01-01T00:00:00+00:00")
    }
  }

  func testDescribeGivesBackWhatWasWritten() throws {
    let scratch = try Scratch()
    let (path, measurements) = try build(scratch)
    let image = try EIFDescription(path: path)
    XCTAssertNil(image.damage)
    XCTAssertTrue(image.checksumMatches)
    XCTAssertEqual(image.measurements, measurements)
    XCTAssertEqual(image.commandLine, "console=ttyS0 a=b")
    XCTAssertEqual(image.sections.map(\.kind), [.kernel, .commandLine, .metadata, .ramdisk, .ramdisk])
    XCTAssertEqual(image.sections[0].offset, 548)
    XCTAssertNil(image.signature)
  }

  func testAFlippedByteAnywhereIsFound() throws {
    let scratch = try Scratch()
    let (path, _) = try build(scratch, signer: try signer(scratch))
    let whole = try FileSlice(path: path).all(limit: 1 << 20)
    let image = try EIFDescription(path: path)
    var places = Array(stride(from: 0, to: 548, by: 1))
    for section in image.sections {
      places += Array(section.offset..<section.offset + 12)
      places += [section.offset + 12, section.offset + 12 + section.size / 2, section.offset + 11 + section.size]
    }
    for place in places {
      var bytes = whole
      bytes[place] ^= 0x41
      let damaged = try scratch.write("bad.eif", bytes)
      do {
        let found = try EIFDescription(path: damaged)
        XCTAssertNotNil(found.damage, "byte \(place)")
        if place >= 560 || place < 4 { XCTAssertFalse(found.checksumMatches, "byte \(place)") }
      } catch {
        XCTAssertTrue("\(error)".contains("bad.eif: damaged: "), "\(error)")
        XCTAssertTrue(
          place < 560 || image.sections.contains { ($0.offset..<$0.offset + 12).contains(place) }, "byte \(place)")
      }
    }
  }

  func testDamageWithinASectionIsSaidToBeTheChecksum() throws {
    let scratch = try Scratch()
    let (path, _) = try build(scratch)
    for section in try EIFDescription(path: path).sections {
      var bytes = try FileSlice(path: path).all(limit: 1 << 20)
      bytes[section.offset + 12] ^= 1
      let found = try EIFDescription(path: try scratch.write("bad.eif", bytes)).damage
      guard case .checksum? = found else { return XCTFail("\(section.kind): \(String(describing: found))") }
    }
  }

  /// A checksum can be made to fit by whoever alters the file: AWS's reader and QEMU's must not be told two things.
  func testStructuresThatContradictThemselvesAreFoundThoughTheChecksumFits() throws {
    let scratch = try Scratch()
    let (path, _) = try build(scratch)
    let whole = try FileSlice(path: path).all(limit: 1 << 20)
    let sections = try EIFDescription(path: path).sections
    func damage(_ change: (inout [UInt8]) -> Void) throws -> EIFDamage? {
      var bytes = whole
      change(&bytes)
      let checksum = cdecompress_crc32(cdecompress_crc32(0, bytes, 544), Array(bytes[548...]), bytes.count - 548)
      bytes.replaceSubrange(544..<548, with: (0..<4).map { UInt8(truncatingIfNeeded: checksum >> (24 - 8 * $0)) })
      let file = try scratch.write("bad.eif", bytes)
      do throws(ImageError) {
        return try EIFDescription(path: file).damage
      } catch {
        guard case .damaged(_, let damage) = error else { throw error }
        return damage
      }
    }
    XCTAssertNil(try damage { _ in })
    let second = sections[1]
    XCTAssertEqual(
      try damage { $0[second.offset + 11] ^= 1 },
      .sectionSize(index: 1, kind: .commandLine, header: UInt64(second.size), section: UInt64(second.size ^ 1)))
    XCTAssertEqual(
      try damage { $0[28 + 15] ^= 1 },
      .sectionOffset(index: 1, found: UInt64(second.offset ^ 1), expected: second.offset))
    XCTAssertEqual(try damage { $0[second.offset + 1] = 1 }, .repeated(.kernel))
    XCTAssertEqual(try damage { $0[second.offset + 1] = 3 }, .missing(.commandLine))
    XCTAssertEqual(try damage { $0[second.offset + 1] = 9 }, .sectionKind(index: 1, found: 9))
    XCTAssertEqual(try damage { $0[second.offset + 3] = 1 }, .sectionFlags(index: 1, found: 1))
    XCTAssertEqual(try damage { $0[27] = 33 }, .sectionCount(33))
    XCTAssertEqual(try damage { $0[5] = 2 }, .version(2))
    XCTAssertEqual(try damage { $0[sections[2].offset + 12] = 0 }, .metadata("not a JSON object"))
    XCTAssertEqual(try damage { $0[second.offset + 13] = 0 }, .commandLine)
  }

  func testTruncatedAtEveryBoundaryIsATypedErrorThatSaysWhere() throws {
    let scratch = try Scratch()
    let (path, _) = try build(scratch)
    let whole = try FileSlice(path: path).all(limit: 1 << 20)
    var ends = [0, 1, 3, 4, 5, 27, 547, 548]
    for section in try EIFDescription(path: path).sections {
      ends += [
        section.offset, section.offset + 1, section.offset + 11, section.offset + 12, section.offset + 13,
        section.offset + 11 + section.size,
      ]
    }
    for end in Set(ends) where end < whole.count {
      let cut = try scratch.write("cut.eif", Array(whole.prefix(end)))
      XCTAssertThrowsError(try EIFDescription(path: cut), "\(end)") { error in
        guard case ImageError.damaged(_, let damage)? = error as? ImageError else { return XCTFail("\(end): \(error)") }
        switch damage {
        case .magic: XCTAssertLessThan(end, 4)
        case .headerTruncated(let count): XCTAssertEqual(count, end)
        case .sectionHeaderTruncated, .sectionTruncated: XCTAssertGreaterThanOrEqual(end, 548)
        default: XCTFail("\(end): \(damage)")
        }
      }
    }
    let longer = try scratch.write("long.eif", whole + [0])
    XCTAssertTrue(failure { _ = try EIFDescription(path: longer) }.contains("1 bytes follow its last section"))
  }

  func testRandomBytesNeverTrap() throws {
    var generator = SplitMix(seed: 4)
    let scratch = try Scratch()
    let (path, _) = try build(scratch, signer: try signer(scratch))
    let whole = try FileSlice(path: path).all(limit: 1 << 20)
    for round in 0..<300 {
      var bytes = whole
      for _ in 0..<Int.random(in: 1...8, using: &generator) {
        let range = round % 3 == 0 ? 4..<560 : round % 3 == 1 ? (whole.count - 3000)..<whole.count : 0..<whole.count
        bytes[Int.random(in: range, using: &generator)] = UInt8.random(in: .min ... .max, using: &generator)
      }
      _ = try? EIFDescription(path: try scratch.write("r.eif", bytes))
      _ = ModuleInformation(Array(staticProgram.prefix(16)) + generator.bytes(300))
    }
  }

  func testTheHeaderThatIsSigned() { XCTAssertEqual(hex(ImageSigner.protectedHeader), "a1013822") }

  func testASignedImageVerifiesWithOpenSSLAndHasTheFormThatQEMUReads() throws {
    let scratch = try Scratch()
    let (path, measurements) = try build(scratch, signer: try signer(scratch))
    let image = try EIFDescription(path: path)
    XCTAssertNil(image.damage)
    XCTAssertEqual(image.signature?.certificate.subject, "C=DE, O=Tombolo, CN=signer")
    XCTAssertEqual(image.measurements.pcr8, measurements.pcr8)
    // Reads the section as QEMU's hw/core/eif.c does (an array of one map of two, the certificate first and as an
    // array of 8-bit numbers), takes the COSE_Sign1 apart, and leaves what openssl needs.
    let script = """
      \(independent)
      def item(b, i):
          first = b[i]; i += 1; major, low = first >> 5, first & 31; v = low
          if low >= 24: n = 1 << (low - 24); v = int.from_bytes(b[i:i+n], 'big'); i += n
          if major == 0: return v, i
          if major == 1: return -1 - v, i
          if major == 2: return b[i:i+v], i + v
          if major == 3: return b[i:i+v].decode(), i + v
          if major == 4:
              l = []
              for _ in range(v): x, i = item(b, i); l.append(x)
              return l, i
          if major == 5:
              l = []
              for _ in range(v):
                  k, i = item(b, i); x, i = item(b, i); l.append((k, x))
              return l, i
          raise ValueError(first)
      section = parts[kinds.index(4)]
      value, end = item(section, 0); assert end == len(section) and len(value) == 1 and len(value[0]) == 2
      (ck, cert), (sk, sig) = value[0]; assert ck == 'signing_certificate' and sk == 'signature'
      assert all(type(x) is int and x < 256 for x in cert + sig)
      cose, end = item(bytes(sig), 0); assert end == len(sig) and len(cose) == 4 and cose[1] == []
      protected, _, payload, raw = cose; assert protected == b'\\xa1\\x01\\x38\\x22' and len(raw) == 96
      (ik, iv), (rk, rv) = item(payload, 0)[0]; assert (ik, iv, rk) == ('register_index', 0, 'register_value')
      assert bytes(rv).hex() == out['pcrs'][0]
      def bstr(x): return (b'\\x58' + bytes([len(x)]) if 24 <= len(x) < 256 else bytes([0x40 + len(x)])) + x
      signed = b'\\x84\\x6aSignature1' + bstr(protected) + b'\\x40' + (bstr(payload) if len(payload) < 256 else b'\\x59' + len(payload).to_bytes(2, 'big') + payload)
      def integer(x):
          x = x.lstrip(b'\\0'); x = (b'\\0' if not x or x[0] & 0x80 else b'') + x
          return b'\\x02' + bytes([len(x)]) + x
      body = integer(raw[:48]) + integer(raw[48:])
      open(sys.argv[2] + '/sig.der', 'wb').write(b'\\x30' + bytes([len(body)]) + body)
      open(sys.argv[2] + '/signed', 'wb').write(signed)
      open(sys.argv[2] + '/c.pem', 'wb').write(bytes(cert))
      """
    let file = try scratch.write("sig.py", script)
    try shell("python3 $1 $2 $3 2>&1", file, path, scratch.path)
    let output = try shell(
      """
      cd $1 && openssl x509 -in c.pem -pubkey -noout > pub.pem && openssl dgst -sha384 -verify pub.pem -signature sig.der signed &&
      openssl x509 -in c.pem -outform DER | python3 -c 'import sys,hashlib; d=sys.stdin.buffer.read()
      print(hashlib.sha384(bytes(48)+hashlib.sha384(d).digest()).hexdigest())'
      """, scratch.path)
    XCTAssertTrue(output.contains("Verified OK"), output)
    XCTAssertTrue(output.contains(hex(measurements.pcr8 ?? [])), output)
  }

  func testASignatureOfAnotherImageIsFound() throws {
    let scratch = try Scratch()
    let key = try signer(scratch)
    let path = try build(scratch, signer: key).0
    var bytes = try FileSlice(path: path).all(limit: 1 << 20)
    let section = try XCTUnwrap(try EIFDescription(path: path).sections.last)
    let start = section.offset + 12
    let other = try key.section(pcr0: [UInt8](repeating: 9, count: 48))
    // Of the same length, so that only the signature can tell; numbers below 24 take a byte less in CBOR.
    bytes.replaceSubrange(start..<bytes.count, with: other)
    for place in [section.offset + 4, 284 + 8 * 5] {
      bytes.replaceSubrange(
        place..<place + 8, with: (0..<8).map { UInt8(truncatingIfNeeded: other.count >> (56 - 8 * $0)) })
    }
    let damage = try EIFDescription(path: try scratch.write("other.eif", bytes))
    XCTAssertFalse(damage.checksumMatches)
    XCTAssertEqual(damage.signature?.signedPCR0, [UInt8](repeating: 9, count: 48))
  }

  func testKeysThatDoNotFitAreRefusedByName() throws {
    let scratch = try Scratch()
    let other = try Scratch()
    _ = try signer(scratch)
    _ = try signer(other)
    XCTAssertTrue(
      failure { _ = try ImageSigner(certificatePath: scratch.path + "/cert.pem", keyPath: other.path + "/key.pem") }
        .contains("key.pem: is not the key of the certificate"))
    XCTAssertTrue(failure { _ = try signer(other, curve: "prime256v1") }.contains("not on the curve P-384"))
    XCTAssertTrue(
      failure { _ = try ImageSigner(certificatePath: scratch.path + "/key.pem", keyPath: scratch.path + "/key.pem") }
        .contains("there is no PEM certificate"))
    XCTAssertTrue(
      failure { _ = try ImageSigner(certificatePath: scratch.path + "/cert.pem", keyPath: scratch.path + "/cert.pem") }
        .contains("no unencrypted PEM private key"))
    try shell("openssl pkcs8 -topk8 -nocrypt -in $1/key.pem -out $1/pkcs8.pem", scratch.path)
    XCTAssertNoThrow(try ImageSigner(certificatePath: scratch.path + "/cert.pem", keyPath: scratch.path + "/pkcs8.pem"))
  }

  func testTimesAreThoseOfDate() throws {
    for seconds in [0, 951_782_399, 951_782_400, 1_709_251_200, 4_107_542_400, UInt32.max] as [UInt32] {
      XCTAssertEqual(rfc3339(seconds), try shell("date -u -d @\(seconds) +%Y-%m-%dT%H:%M:%S+00:00").trimmed)
    }
  }
}
