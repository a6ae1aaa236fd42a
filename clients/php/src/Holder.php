<?php

declare(strict_types=1);

namespace SmallResource\Client;

/** Who holds a lock, as the server shows it to others. Times are RFC 3339, for people. */
final class Holder
{
    public function __construct(
        public readonly ?string $owner,
        public readonly ?string $reason,
        public readonly string $mode,
        public readonly ?string $acquiredAt,
        public readonly ?string $expiresAt,
        public readonly ?int $fencingToken,
    ) {
    }

    public static function fromAnswer(mixed $holder): ?self
    {
        if (!\is_array($holder)) {
            return null;
        }

        return new self(
            $holder['owner'] ?? null,
            $holder['reason'] ?? null,
            $holder['mode'] ?? 'exclusive',
            $holder['acquiredAt'] ?? null,
            $holder['expiresAt'] ?? null,
            $holder['fencingToken'] ?? null,
        );
    }
}
