import CDecompress

/// What goes into an EIF.
struct EIFContents {
  var kernel: FileSlice
  var architecture: KernelArchitecture
  var commandLine: String
  var metadata: [UInt8]
  var ramdisks: [CpioArchive]
  var signer: ImageSigner?

  /// What writing it moves, for a progress bar.
  var byteCount: Int {
    ramdisks.reduce(kernel.count + commandLine.utf8.count + metadata.count) { $0 + $1.byteCount }
  }
}

/// Writes an EIF in one pass: sections in the order of AWS's builder, measured and summed on the way, then the header
/// over its place at the front.
struct EIFWriter {
  private let output: AtomicOutput
  private let progress: (Int) -> Void
  private var header = EIFHeader()
  private var measurer = Measurer()
  private var checksum: UInt32 = 0

  private init(_ output: AtomicOutput, progress: @escaping (Int) -> Void) {
    self.output = output
    self.progress = progress
  }

  /// - Parameter progress: called with the bytes written so far.
  static func write(
    _ contents: EIFContents, to output: AtomicOutput, progress: @escaping (Int) -> Void
  ) throws(ImageError) -> Measurements {
    guard contents.ramdisks.count <= EIFFormat.mostSections - 4 else {
      throw .refused(
        "an EIF with \(contents.ramdisks.count) ramdisks; at most \(EIFFormat.mostSections - 4) have a place")
    }
    guard !contents.commandLine.utf8.contains(0) else { throw .refused("the kernel's command line has a NUL in it") }
    var writer = EIFWriter(output, progress: progress)
    return try writer.write(contents)
  }

  private mutating func write(_ contents: EIFContents) throws(ImageError) -> Measurements {
    if contents.architecture == .arm64 { header.flags |= EIFFormat.arm64Flag }
    try raw([UInt8](repeating: 0, count: EIFFormat.headerSize))
    checksum = 0
    try section(.kernel, contents.kernel.count) { (sink) throws(ImageError) in try contents.kernel.forEachChunk(sink) }
    try section(.commandLine, Array(contents.commandLine.utf8))
    try section(.metadata, contents.metadata)
    for ramdisk in contents.ramdisks {
      try section(.ramdisk, ramdisk.byteCount) { (sink) throws(ImageError) in try ramdisk.write(sink) }
    }
    let measurements = measurer.measurements(certificate: contents.signer?.certificate.der)
    if let signer = contents.signer { try section(.signature, try signer.section(pcr0: measurements.pcr0)) }
    let front = header.bytesBeforeChecksum
    // The header stands first in the checksum too, but is known last.
    let frontSum = front.withUnsafeBufferPointer { cdecompress_crc32(0, $0.baseAddress, $0.count) }
    header.checksum = cdecompress_crc32_combine(frontSum, checksum, Int64(output.count - EIFFormat.headerSize))
    try output.overwriteStart(with: header.bytes)
    return measurements
  }

  private mutating func section(_ kind: EIFSectionKind, _ bytes: [UInt8]) throws(ImageError) {
    try section(kind, bytes.count) { (sink) throws(ImageError) in try FileContent.bytes(bytes).forEachChunk(sink) }
  }

  private mutating func section(
    _ kind: EIFSectionKind, _ size: Int,
    _ body: ((UnsafeRawBufferPointer) throws(ImageError) -> Void) throws(ImageError) -> Void
  ) throws(ImageError) {
    header.offsets.append(UInt64(output.count))
    header.sizes.append(UInt64(size))
    var front: [UInt8] = []
    front.append(bigEndian: kind.rawValue)
    front.append(bigEndian: UInt16(0))
    front.append(bigEndian: UInt64(size))
    try raw(front)
    let start = output.count
    measurer.begin(kind)
    // Taken out for the closure's time, which may not share `self`.
    var measurer = self.measurer
    var checksum = self.checksum
    try body { (chunk) throws(ImageError) in
      measurer.update(chunk)
      checksum = cdecompress_crc32(checksum, chunk.bindMemory(to: UInt8.self).baseAddress, chunk.count)
      try output.append(chunk)
      progress(output.count)
    }
    self.measurer = measurer
    self.checksum = checksum
    guard output.count - start == size else {
      throw .refused(
        "\(output.path): the \(kind) changed from \(size) to \(output.count - start) bytes while it was read")
    }
  }

  private mutating func raw(_ bytes: [UInt8]) throws(ImageError) {
    checksum = bytes.withUnsafeBufferPointer { cdecompress_crc32(checksum, $0.baseAddress, $0.count) }
    try FileContent.bytes(bytes).forEachChunk { (chunk) throws(ImageError) in try output.append(chunk) }
  }
}
