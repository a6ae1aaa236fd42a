<?php

declare(strict_types=1);

namespace SmallResource\Client\Exception;

use SmallResource\Client\Reply;

/**
 * The lock was held and is not any more: whatever it protects must be left alone from now on.
 *
 * `serverCode` tells why. From the server: `lease_expired`, `lease_forced_off`, `ticket_released`,
 * `ticket_unknown`, `resource_unknown`. From this client: `deadline_passed` (no renewal got through in time),
 * `max_lifetime` (autoRenew was told to end), `renewer_failed` (the renewing process said something unknown).
 */
final class LockLost extends ResourceServerException
{
    /** What the operator wrote who forced the lock off. */
    private ?string $forcedReason = null;
    private ?string $forcedBy = null;

    public static function told(Reply $reply): self
    {
        return self::fromAnswer(json_decode($reply->body, true) ?: [], $reply->status, $reply->sentence(), $reply->code());
    }

    /** @internal */
    public static function fromAnswer(array $answer, int $status, string $sentence, string $code): self
    {
        $forced = $answer['forced'] ?? null;
        if (\is_array($forced) && \is_string($forced['reason'] ?? null)) {
            $sentence .= sprintf(' Forced off by "%s": %s', $forced['by'] ?? '', $forced['reason']);
        }
        $lost = new self($sentence, $code ?: 'status_'.$status, $status);
        if (\is_array($forced)) {
            $lost->forcedReason = $forced['reason'] ?? null;
            $lost->forcedBy = $forced['by'] ?? null;
        }

        return $lost;
    }

    public static function deadlinePassed(string $name): self
    {
        return new self(sprintf('The lease of "%s" was not renewed in time: somebody else may hold it now.', $name), 'deadline_passed');
    }

    /** What the operator wrote who forced the lock off; null when nobody did. */
    public function forcedReason(): ?string
    {
        return $this->forcedReason;
    }

    /** The name of the key with which the lock was forced off; null when nobody did. */
    public function forcedBy(): ?string
    {
        return $this->forcedBy;
    }
}
