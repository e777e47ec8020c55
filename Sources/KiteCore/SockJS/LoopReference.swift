/// A reference to an object of another event loop, which can be called there and only there.
import NIOCore

/// Calls an object on its own event loop: at once when already there, otherwise in that loop's next turn. Calls made on one loop arrive in the
/// order in which they were made.
struct LoopReference<Object>: Sendable {
    let eventLoop: any EventLoop
    private let object: NIOLoopBound<Object>

    /// Made on the object's loop.
    init(_ object: Object, on eventLoop: any EventLoop) {
        self.eventLoop = eventLoop
        self.object = NIOLoopBound(object, eventLoop: eventLoop)
    }

    func run(_ call: @escaping @Sendable (Object) -> Void) {
        if eventLoop.inEventLoop {
            call(object.value)
        } else {
            eventLoop.execute { call(object.value) }
        }
    }
}
