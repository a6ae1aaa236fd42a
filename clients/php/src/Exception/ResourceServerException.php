<?php

declare(strict_types=1);

namespace SmallResource\Client\Exception;

use SmallResource\Client\Reply;

/** What every exception of this package is, so that all can be caught at once. The message is the server's sentence. */
class ResourceServerException extends \RuntimeException
{
    /**
     * @param string $serverCode the server's stable code, or one of this client's where the server said nothing
     * @param int    $status     of the answer; 0 when there was none
     */
    final public function __construct(string $message, public readonly string $serverCode, public readonly int $status = 0, ?\Throwable $previous = null)
    {
        parent::__construct($message, $status, $previous);
    }

    /** The exception for an answer that is not the one asked for. */
    public static function fromReply(Reply $reply): self
    {
        $class = match (true) {
            400 === $reply->status => RequestMalformed::class,
            401 === $reply->status => KeyRefused::class,
            403 === $reply->status => LockLost::class,
            404 === $reply->status => NotFound::class,
            409 === $reply->status => 'resource_exists' === $reply->code() ? AlreadyExists::class : LockConflict::class,
            412 === $reply->status => PreconditionFailed::class,
            413 === $reply->status => TooLarge::class,
            429 === $reply->status => RateLimited::class,
            $reply->status >= 500 => ServerUnavailable::class,
            default => InvalidAnswer::class,
        };
        if (LockLost::class === $class) {
            return LockLost::told($reply);
        }

        return new $class($reply->sentence(), $reply->code() ?: 'status_'.$reply->status, $reply->status);
    }
}
