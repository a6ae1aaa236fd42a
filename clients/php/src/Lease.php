<?php

declare(strict_types=1);

namespace SmallResource\Client;

use SmallResource\Client\Exception\LockLost;
use SmallResource\Client\Exception\ResourceServerException;

/**
 * A lock that was granted, and until when that is certain. Once it is lost it stays lost.
 *
 * @internal
 */
final class Lease
{
    /** Selects no document: the lock is the resource's, and every selector leads to it. */
    private const SELECTOR = 'lock';

    private ?LockLost $lost = null;
    private readonly int $pid;

    /** @param Deadline|null $deadline when it may end at the earliest; null: it does not expire */
    public function __construct(
        public readonly string $name,
        public readonly string $ticket,
        public readonly int $fencingToken,
        private ?Deadline $deadline,
    ) {
        $this->pid = getmypid();
    }

    /** The ticket proves who holds the lock, so it stays out of dumps. */
    public function __debugInfo(): array
    {
        return ['name' => $this->name, 'fencingToken' => $this->fencingToken, 'lost' => $this->lost?->serverCode];
    }

    public static function path(string $name, string $verb): string
    {
        return Request::path($name, self::SELECTOR, $verb);
    }

    public function deadline(): ?Deadline
    {
        return $this->deadline;
    }

    /** False in a process that was forked from the one that took the lock. */
    public function isOfThisProcess(): bool
    {
        return getmypid() === $this->pid;
    }

    /** Whether all that is known of it has passed, and nobody was told yet that it is lost. */
    public function isOverdue(): bool
    {
        return null === $this->lost && true === $this->deadline?->passed();
    }

    public function lost(): ?LockLost
    {
        if ($this->isOverdue()) {
            $this->lost = LockLost::deadlinePassed($this->name);
        }

        return $this->lost;
    }

    /** @return LockLost the first reason, when there are several */
    public function lose(LockLost $why): LockLost
    {
        return $this->lost ??= $why;
    }

    /**
     * The lease lasts until then at least: the server said so of this very lease, so it did not end in between,
     * also when that is heard of only after the deadline that was known until now.
     */
    public function extend(?Deadline $deadline): void
    {
        if (null === $this->lost && (null === $deadline || (null !== $this->deadline && $deadline->instant() > $this->deadline->instant()))) {
            $this->deadline = $deadline;
        }
    }

    /** @throws LockLost */
    public function ensureHeld(): void
    {
        if (null !== $lost = $this->lost()) {
            throw $lost;
        }
    }

    /**
     * @param float|null $ttl   seconds from now; null: the lease's own
     * @param bool       $exact also to an earlier time than before
     *
     * @throws LockLost                when it is not held any more
     * @throws ResourceServerException when that is not known
     */
    public function renew(Client $client, ?float $ttl, bool $exact = false): void
    {
        $this->ensureHeld();
        $body = [];
        if (null !== $ttl) {
            $body['ttl'] = Request::seconds($ttl);
        }
        if ($exact) {
            $body['exact'] = true;
        }
        $request = new Request('PUT', self::path($this->name, 'renew'), [], $body ? Request::json($body) : null, $this->ticket);
        try {
            $reply = $client->send($request, Deadline::earlier(Deadline::in($client->timeout), $this->deadline));
        } catch (ResourceServerException $e) {
            throw $this->lost() ?? $e;
        }
        if (200 !== $reply->status) {
            throw $this->refused($reply);
        }
        $deadline = self::deadlineOf($reply, $client->drift);
        if ($exact) {
            // What the caller asked for, when that is less than a server's millisecond.
            $this->deadline = Deadline::earlier($deadline, null === $ttl ? null : Deadline::ofLease($reply->sentAt, 0.0, $ttl, $client->drift));
        } else {
            $this->extend($deadline);
        }
        $this->ensureHeld();
    }

    /**
     * Gives the lock back. A lock that was lost needs no giving back: that is no error.
     *
     * @return bool whether it was held until now
     *
     * @throws ResourceServerException when the server could not be told; the lease then ends by itself
     */
    public function release(Client $client): bool
    {
        $reply = $client->send(new Request('PUT', self::path($this->name, 'unlock'), [], null, $this->ticket), Deadline::in($client->timeout));
        // 404: a name that was made for the lock is gone by the first copy of a request that was sent twice.
        if (200 === $reply->status || 404 === $reply->status) {
            return null === $this->lost();
        }
        if (403 === $reply->status) {
            $this->lose(LockLost::told($reply));

            return false;
        }

        throw ResourceServerException::fromReply($reply);
    }

    /** Says why a request of the holder was refused, and keeps it where the lock is lost by that. */
    public function refused(Reply $reply): ResourceServerException
    {
        return match ($reply->status) {
            403, 404, 409 => $this->lose(LockLost::told($reply)),
            default => ResourceServerException::fromReply($reply),
        };
    }

    /** Until when the lease lasts that an answer tells of; null: it does not expire. */
    public static function deadlineOf(Reply $reply, float $drift, ?float $atMost = null): ?Deadline
    {
        $answer = $reply->json();
        $ttl = ($answer['ttl'] ?? 0) ?: null;
        // Less than the ttl when a server bounds the whole life of a lease, or told of a grant before.
        $left = isset($answer['expiresInMs']) ? $answer['expiresInMs'] / 1000 : null;
        $seconds = array_filter([$ttl, $left, $atMost], static fn ($value) => null !== $value);

        return $seconds ? Deadline::ofLease($reply->sentAt, ($answer['waitedMs'] ?? 0) / 1000, (float) min($seconds), $drift) : null;
    }
}
