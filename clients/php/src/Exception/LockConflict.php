<?php

declare(strict_types=1);

namespace SmallResource\Client\Exception;

/** Somebody else holds the lock, or it cannot be had in this way now (409). */
final class LockConflict extends ResourceServerException
{
}
