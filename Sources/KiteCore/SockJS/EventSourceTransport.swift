/// `eventsource`: frames as server-sent events.
import KiteHTTP
import NIOCore

extension SockJSResponseFormat {
    /// One event per frame. Frames hold no line ends, because JSON escapes them.
    static func eventSource(for request: RequestHead, options: SockJSOptions) -> SockJSResponseFormat {
        SockJSResponseFormat(
            head: SockJSResponse.head(
                200, contentType: "text/event-stream", caching: .never, crossOrigin: .echoExceptNull, for: request,
                setsCookie: options.setsCookie), prelude: ByteBuffer(string: "\r\n"),
            limit: max(options.responseLimit, 2)
        ) { frame, output in
            output.writeStaticString("data: ")
            frame.write(into: &output)
            output.writeStaticString("\r\n\r\n")
        }
    }
}
