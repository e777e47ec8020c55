/// Takes a compact JWT (RFC 7519, RFC 7515 section 7.1) apart. Nothing is verified here but the form.
internal import JWTKit

#if canImport(FoundationEssentials)
package import FoundationEssentials
#else
package import Foundation
#endif

/// A JWT whose header demands RS256, with its claims still unproven.
package struct SignedToken: Sendable {
    /// A kite key is about 1.2 KB, a token 0.6 KB.
    package static let maximumLength = 8192

    package let claims: KiteClaims
    /// Header and claims as signed.
    package let signedBytes: ArraySlice<UInt8>
    package let signature: Data

    /// - Throws: ``TokenError`` for what is too long, malformed, or not RS256.
    package init(parsing text: String) throws(TokenError) {
        let bytes = Array(text.utf8.prefix(Self.maximumLength + 1))
        guard bytes.count <= Self.maximumLength else { throw .tooLong }
        let segments = bytes.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
        guard segments.count == 3 else { throw .segments }
        for segment in segments { try Self.check(segment) }
        let parsed: (header: JWTHeader, payload: KiteClaims, signature: Data)
        do {
            parsed = try DefaultJWTParser().parse(bytes, as: KiteClaims.self)
        } catch {
            throw .malformed
        }
        // RFC 7515 section 4.1.11: what is critical and not understood must be refused.
        guard parsed.header.alg == "RS256", parsed.header.fields["crit"] == nil else { throw .signingMethod }
        claims = parsed.payload
        signature = parsed.signature
        signedBytes = bytes[..<(segments[1].endIndex)]
    }

    /// Base64url without padding, of a length that can be.
    private static func check(_ segment: ArraySlice<UInt8>) throws(TokenError) {
        for (offset, byte) in segment.enumerated() {
            switch byte {
            case UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "a")...UInt8(ascii: "z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "_"):
                continue
            default: throw .encoding(offset: offset)
            }
        }
        guard segment.count % 4 != 1 else { throw .encoding(offset: segment.count - 1) }
    }
}
