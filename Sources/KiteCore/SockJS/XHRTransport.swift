/// `xhr` and `xhr_streaming`: frames as lines of a response to POST.
import KiteHTTP
import NIOCore

extension SockJSResponseFormat {
    /// One frame and a line feed.
    static func xhrPolling(for request: RequestHead, setsCookie: Bool) -> SockJSResponseFormat {
        SockJSResponseFormat(
            head: SockJSResponse.head(
                200, contentType: SockJSResponse.script, caching: .never, crossOrigin: .echo, for: request,
                setsCookie: setsCookie), prelude: ByteBuffer(), limit: 1, write: writeLine)
    }

    /// Lines, after 2048 bytes without meaning, which some browsers want before they show any.
    static func xhrStreaming(for request: RequestHead, options: SockJSOptions) -> SockJSResponseFormat {
        var format = xhrPolling(for: request, setsCookie: options.setsCookie)
        format.prelude.writeRepeatingByte(UInt8(ascii: "h"), count: 2048)
        format.prelude.writeStaticString("\n")
        format.limit = max(options.responseLimit, 2)
        return format
    }

    private static func writeLine(_ frame: SockJSFrame, into output: inout ByteBuffer) {
        frame.write(into: &output)
        output.writeStaticString("\n")
    }
}
