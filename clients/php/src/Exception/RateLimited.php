<?php

declare(strict_types=1);

namespace SmallResource\Client\Exception;

/** Too many requests, for longer than was retried (429). */
final class RateLimited extends ResourceServerException
{
}
