/// Frames of the tunnel: what passes between gateway and agent for each message.
import KiteHTTP
import KiteTunnel
import NIOCore

private let stream = TunnelStreamID(openedByAgent: false, generation: 1, slot: 7)
private let payload = ByteBuffer(repeating: 0x78, count: 300)

let tunnelBenchmarks = [
    // 32 frames, as they come with one read under load.
    MicroBenchmark(name: "decode-32-frames") {
        var wire = ByteBuffer()
        for _ in 0..<32 { wire.writeTunnelFrame(.data(stream, payload, isEnd: false)) }
        let received = wire
        var decoder = TunnelFrameDecoder()
        return {
            decoder.receive(received)
            var count = 0
            while try decoder.next() != nil { count += 1 }
            guard count == 32 else { throw WrongResult(benchmark: "decode-32-frames") }
        }
    },
    MicroBenchmark(name: "encode-32-frames") {
        return {
            var buffer = ByteBufferAllocator().buffer(capacity: 16_384)
            for _ in 0..<32 { buffer.writeTunnelFrame(.data(stream, payload, isEnd: false)) }
            guard buffer.readableBytes == 32 * 308 else { throw WrongResult(benchmark: "encode-32-frames") }
        }
    },
]
