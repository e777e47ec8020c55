/// Whoever imports KiteCore writes and calls kites, and so has dnode's values in hand.
@_exported public import KiteDnode
