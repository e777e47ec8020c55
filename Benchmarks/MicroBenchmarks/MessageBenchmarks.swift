/// Messages of kites: WebSocket frames and dnode.
import KiteDnode
import KiteWebSocket
import NIOCore

private let call = ByteBuffer(
    string: """
        {"method":"square","arguments":[{"kite":{"name":"math","username":"ann","id":"3a1c","environment":"public",\
        "region":"eu","version":"1.0.0","hostname":"one"},"authentication":{"type":"token","key":"eyJhbGciOiJSUzI1NiJ9"},\
        "withArgs":[4,{"precise":true,"unit":"m"},"text with a \\"quote\\" and ünicode"],"responseCallback":"[Function]"}],\
        "callbacks":{"12":[0,"responseCallback"]}}
        """)

let messageBenchmarks = [
    MicroBenchmark(name: "parse-dnode-call") {
        return {
            let message = DnodeMessage.parse(call) { _ in DnodeFunction { _ in } }
            guard case .success(let parsed) = message, parsed.callbacks.count == 1 else {
                throw WrongResult(benchmark: "parse-dnode-call")
            }
        }
    },
    MicroBenchmark(name: "write-dnode-answer") {
        let answer = DnodeMessage(
            method: .callback(DnodeCallbackID(12)),
            arguments: [["error": .null, "result": ["area": 16, "unit": "m", "path": [1, 2, 3, "four"]]]])
        return {
            guard try answer.serialized().readableBytes > 60 else {
                throw WrongResult(benchmark: "write-dnode-answer")
            }
        }
    },
    MicroBenchmark(name: "decode-websocket-frame") {
        var encoder = WebSocketFrameEncoder(role: .client)
        var wire = ByteBuffer()
        encoder.encode(.text, payload: ByteBuffer(repeating: 0x78, count: 128), into: &wire)
        let received = wire
        var decoder = WebSocketFrameDecoder(role: .server, maxFrameBytes: 1 << 20)
        return {
            decoder.append(received)
            guard try decoder.next() != nil else { throw WrongResult(benchmark: "decode-websocket-frame") }
        }
    },
    MicroBenchmark(name: "encode-websocket-frame") {
        var encoder = WebSocketFrameEncoder(role: .server)
        let payload = ByteBuffer(repeating: 0x78, count: 128)
        return {
            var buffer = ByteBuffer()
            encoder.encode(.text, payload: payload, into: &buffer)
            guard buffer.readableBytes == 132 else { throw WrongResult(benchmark: "encode-websocket-frame") }
        }
    },
]
