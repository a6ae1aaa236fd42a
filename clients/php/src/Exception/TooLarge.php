<?php

declare(strict_types=1);

namespace SmallResource\Client\Exception;

/** A document is larger than the server takes (413). */
final class TooLarge extends ResourceServerException
{
}
