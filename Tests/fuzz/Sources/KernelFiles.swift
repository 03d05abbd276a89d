@testable import Booting
@testable import Imaging

/// Files that an image is built of: kernels, modules, the init program; and what the security module answers.
let kernelFiles = Harness("kernel-files", limit: 4096) { bytes in
  _ = ModuleInformation(bytes)
  if let random = KernelSteps.randomBytes(bytes) { check((1...1024).contains(random.count), "\(random.count) bytes") }
  guard let slice = memoryFile(bytes) else { return }
  do throws(ImageError) { _ = try KernelImage(slice) } catch { check(!error.description.isEmpty, "no reason") }
  do throws(ImageError) { try StaticProgram.check(slice) } catch { check(!error.description.isEmpty, "no reason") }
}
