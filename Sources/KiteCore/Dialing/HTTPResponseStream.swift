/// A response whose body is taken piece by piece, as it comes: long or endless ones, such as streams of events.
public import KiteHTTP
public import NIOCore

/// What ``HTTPRequester/open(_:body:to:timeout:)`` returns. A server that sends faster than ``next()`` is called is slowed down. The
/// connection is used again when the body was read to its end; it is closed when the stream is let go before.
public final class HTTPResponseStream: Sendable {
    /// The response's head.
    public let head: ResponseHead
    private let loop: any EventLoop
    private let body: NIOLoopBound<HTTPResponseBody>

    init(head: ResponseHead, body: NIOLoopBound<HTTPResponseBody>, _ loop: any EventLoop) {
        self.head = head
        self.body = body
        self.loop = loop
    }

    deinit { close() }

    /// Waits for bytes of the body. Only one task at a time may wait.
    /// - Returns: what has arrived since the last call, never empty; nil at the end of the body.
    /// - Throws: ``TransportError`` when the body is cut short or broken, `.refused` when another task waits already;
    ///   `CancellationError` when the waiting task is cancelled, which closes the connection.
    public func next() async throws -> ByteBuffer? {
        let promise = loop.makePromise(of: ByteBuffer?.self)
        return try await withTaskCancellationHandler {
            loop.execute { [body] in body.value.next(promise) }
            return try await promise.futureResult.get()
        } onCancel: {
            loop.execute { [body] in body.value.cancel(CancellationError()) }
        }
    }

    /// Closes the connection unless the body is complete. Whoever waits gets an error. Nothing happens the second time.
    public func close() {
        loop.execute { [body] in body.value.cancel(TransportError(.cancelled, "the response is no longer wanted")) }
    }
}

/// What has arrived and not been taken. Bound to its loop.
final class HTTPResponseBody {
    /// The connection is paused once this many bytes wait.
    static let highWater = 64 * 1024

    /// Nil once the body has ended.
    private var call: HTTPRequesterCall?
    private var waiting = ByteBuffer()
    private var isPaused = false
    private var failure: (any Error)?
    private var reader: EventLoopPromise<ByteBuffer?>?

    init(_ call: HTTPRequesterCall) { self.call = call }

    func received(_ bytes: ByteBuffer) {
        if let reader {
            self.reader = nil
            return reader.succeed(bytes)
        }
        waiting.writeImmutableBuffer(bytes)
        guard waiting.readableBytes >= Self.highWater, !isPaused else { return }
        isPaused = true
        call?.setReading(false)
    }

    /// - Parameter error: nil: the body is complete.
    func ended(_ error: (any Error)?) {
        call = nil
        failure = error
        guard let reader else { return }
        self.reader = nil
        if let error { reader.fail(error) } else { reader.succeed(nil) }
    }

    func next(_ promise: EventLoopPromise<ByteBuffer?>) {
        guard reader == nil else {
            return promise.fail(TransportError(.refused, "another task waits for the response already"))
        }
        if waiting.readableBytes > 0 {
            let bytes = waiting
            waiting = ByteBuffer()
            promise.succeed(bytes)
            guard isPaused else { return }
            isPaused = false
            call?.setReading(true)
        } else if let failure {
            promise.fail(failure)
        } else if call == nil {
            promise.succeed(nil)
        } else {
            reader = promise
        }
    }

    /// Gives up a body that has not ended; what waits is dropped.
    func cancel(_ error: any Error) {
        guard let call else { return }
        waiting = ByteBuffer()
        call.fail(error)
    }
}
