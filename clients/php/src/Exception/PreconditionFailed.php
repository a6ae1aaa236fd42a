<?php

declare(strict_types=1);

namespace SmallResource\Client\Exception;

/** The document is another one than was expected (412). */
final class PreconditionFailed extends ResourceServerException
{
}
