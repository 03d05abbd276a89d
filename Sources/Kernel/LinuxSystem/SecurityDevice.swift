import CLinux

/// Asks the Nitro Secure Module behind an open /dev/nsm one thing, and waits for its answer: the driver has one request at a
/// time on its way, and gives up after 120 s. The C function is `ioctl(NSM_IOCTL_RAW)`.
/// - Parameters:
///   - request: CBOR; more than 4096 bytes are refused with EMSGSIZE.
///   - limit: what the driver lets an answer have; with less it would be cut off without a word.
/// - Returns: the answer in CBOR, also where that is an error of the module's.
public func askSecurityModule(_ fd: Int32, _ request: [UInt8], limit: Int = 0x3000) throws(SystemError) -> [UInt8] {
  var response = [UInt8](repeating: 0, count: limit)
  let count = try check(
    "ioctl", "/dev/nsm", clinux_nsm_request(fd, request, request.count, &response, response.count))
  return Array(response.prefix(Int(count)))
}
