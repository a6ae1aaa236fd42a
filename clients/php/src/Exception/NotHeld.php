<?php

declare(strict_types=1);

namespace SmallResource\Client\Exception;

/** The lock was not acquired, or was released, by this object. */
final class NotHeld extends ResourceServerException
{
}
