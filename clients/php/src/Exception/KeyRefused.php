<?php

declare(strict_types=1);

namespace SmallResource\Client\Exception;

/** The key is unknown, or does not have the right (401). */
final class KeyRefused extends ResourceServerException
{
}
