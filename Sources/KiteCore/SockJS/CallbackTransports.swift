/// `htmlfile` and `jsonp`: frames as calls of a script function that the client names.
import KiteHTTP
import NIOCore

/// The name of a function in the client's page. It is copied into script, so what is not a plain name is refused.
struct SockJSCallback {
    let name: String

    enum Failure: Error {
        case missing, invalid

        var message: String {
            switch self {
            case .missing: "\"callback\" parameter required"
            case .invalid: "invalid \"callback\" parameter"
            }
        }
    }

    /// From the query, where it is called `c` or `callback`.
    init(query: String?) throws(Failure) {
        guard let raw = Self.parameter("c", in: query) ?? Self.parameter("callback", in: query) else { throw .missing }
        guard let bytes = Self.percentDecoded(raw.utf8, plusIsSpace: true) else { throw .invalid }
        guard !bytes.isEmpty, bytes.count <= 64, bytes.allSatisfy(Self.isAllowed) else { throw .invalid }
        name = String(decoding: bytes, as: UTF8.self)
    }

    private static func isAllowed(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, UInt8(ascii: "-"), UInt8(ascii: "_"), UInt8(ascii: "."): true
        default: false
        }
    }

    /// The first value of a parameter, still encoded.
    static func parameter(_ name: String, in query: String?) -> Substring? {
        guard let query else { return nil }
        for pair in query.split(separator: "&") {
            let parts = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            if parts.first.map(String.init) == name { return parts.count > 1 ? parts[1] : "" }
        }
        return nil
    }

    /// Undoes percent-encoding; nil where it is broken.
    static func percentDecoded(_ text: some Sequence<UInt8>, plusIsSpace: Bool) -> [UInt8]? {
        var result: [UInt8] = []
        var bytes = text.makeIterator()
        func digit(_ byte: UInt8?) -> UInt8? {
            switch byte {
            case .some(let byte) where (0x30...0x39).contains(byte): byte - 0x30
            case .some(let byte) where (0x41...0x46).contains(byte): byte - 0x37
            case .some(let byte) where (0x61...0x66).contains(byte): byte - 0x57
            default: nil
            }
        }
        while let byte = bytes.next() {
            switch byte {
            case UInt8(ascii: "%"):
                guard let high = digit(bytes.next()), let low = digit(bytes.next()) else { return nil }
                result.append(high << 4 | low)
            case UInt8(ascii: "+") where plusIsSpace: result.append(0x20)
            default: result.append(byte)
            }
        }
        return result
    }
}

extension SockJSResponseFormat {
    /// Script elements in an endless page.
    static func htmlFile(_ callback: SockJSCallback, for request: RequestHead, options: SockJSOptions)
        -> SockJSResponseFormat
    {
        var prelude = ByteBuffer(
            string: """
                <!doctype html>
                <html><head>
                  <meta http-equiv="X-UA-Compatible" content="IE=edge" />
                  <meta http-equiv="Content-Type" content="text/html; charset=UTF-8" />
                </head><body><h2>Don't panic!</h2>
                  <script>
                    document.domain = document.domain;
                    var c = parent.\(callback.name);
                    c.start();
                    function p(d) {c.message(d);};
                    window.onload = function() {c.stop();};
                  </script>

                """)
        // Browsers look at the first KiB before they show anything.
        prelude.writeRepeatingByte(0x20, count: max(1024 - prelude.readableBytes, 0) + 14)
        prelude.writeStaticString("\r\n\r\n")
        return SockJSResponseFormat(
            head: SockJSResponse.head(
                200, contentType: "text/html; charset=UTF-8", caching: .never, for: request,
                setsCookie: options.setsCookie), prelude: prelude, limit: max(options.responseLimit, 2)
        ) { frame, output in
            output.writeStaticString("<script>\np(")
            writeAsString(frame, escaping: .script, into: &output)
            output.writeStaticString(");\n</script>\r\n")
        }
    }

    /// One call per response.
    static func jsonp(_ callback: SockJSCallback, for request: RequestHead, options: SockJSOptions)
        -> SockJSResponseFormat
    {
        var head = SockJSResponse.head(
            200, contentType: SockJSResponse.script, caching: .never, for: request, setsCookie: options.setsCookie)
        head.fields.append("X-Content-Type-Options", "nosniff")
        return SockJSResponseFormat(head: head, prelude: ByteBuffer(), limit: 1) { frame, output in
            // The comment keeps the answer from being taken for something else that begins with the client's word.
            output.writeString("/**/\(callback.name)(")
            writeAsString(frame, escaping: .plain, into: &output)
            output.writeStaticString(");\r\n")
        }
    }

    private static func writeAsString(
        _ frame: SockJSFrame, escaping: SockJSText.Escaping, into output: inout ByteBuffer
    ) {
        var text = ByteBuffer()
        frame.write(into: &text)
        SockJSText.writeString(text, escaping: escaping, into: &output)
    }
}
